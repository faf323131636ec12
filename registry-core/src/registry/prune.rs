//! Removing what the journal need not keep, when somebody wants it.

use crate::backend::Limits;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Retention;
use crate::registry::Registry;

impl Registry {
    /// Removes a part of what a journal of this size need not keep, the oldest entries first; returns how many it removed, and 0
    /// when nothing is left that may go ([`Backend::prune_journal`](crate::Backend::prune_journal)). Storages do it by themselves,
    /// now and then, for the retention that they are configured with.
    ///
    /// # Errors
    /// `ReadOnly` when the registry was opened for reading; `Unsupported` where the storage cannot be told to, and of a dry run
    /// ([`CallOptions::dry`](crate::CallOptions::dry)), which nobody can say the outcome of.
    pub async fn prune_journal(&self, retention: &Retention) -> Result<u64> {
        if self.inner.is_read_only {
            let text = format!("{} was opened to be read; its journal stays as it is", self.location());
            return Err(Error::new(ErrorKind::ReadOnly, text));
        }
        self.check_admin("prune the journal")?;
        if self.call.is_dry() {
            let text = "what would be pruned cannot be told without doing so; nothing was removed";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let deadline = self.deadline();
        self.inner.backend.prune_journal(retention, &deadline).await
    }

    /// What the storage can hold, and which promises it cannot keep.
    pub fn limits(&self) -> Limits {
        self.inner.backend.limits()
    }
}
