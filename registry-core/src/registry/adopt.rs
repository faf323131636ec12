//! What older Feast versions left, when a registry is opened.

use super::Registry;
use super::transact::Call;
use crate::access::Judges;
use crate::backend::{Key, Query};
use crate::deadline::Deadline;
use crate::error::{ErrorKind, Result};
use crate::locks::LockScope;
use crate::rules;

impl Registry {
    /// Registries of Feast before 0.40 had no project objects; with `purge_feast_metadata`, their old form then goes.
    pub(super) async fn adopt_old_projects(&self, deadline: Deadline) -> Result<()> {
        let queries = rules::fetch_for_adoption();
        let answers = match self.inner.backend.read(&queries, &deadline).await {
            // With `schema_mode: skip` the tables may be made later: there is nothing old in those.
            Err(error) if error.kind() == ErrorKind::SchemaMissing => return Ok(()),
            answers => answers?,
        };
        let metadata = answers.into_iter().next().unwrap_or_default();
        let identities: Vec<(String, i64)> = metadata
            .iter()
            .filter_map(|record| match &record.key {
                Key::Metadata { project, name } if name == Key::PROJECT_UUID => Some((project.clone(), record.updated)),
                _ => None,
            })
            .collect();
        if identities.is_empty() {
            return Ok(());
        }
        let purged: Vec<Key> = if self.inner.keeps_metadata {
            Vec::new()
        } else {
            metadata.into_iter().map(|record| record.key).collect()
        };
        let projects = vec![Query::Keys(identities.iter().map(|(project, _)| Key::project_object(project)).collect())];
        let call = Call::of_registry(deadline);
        let mut judges = Judges::default();
        let adopted = self.inner.transact(&call, &mut judges, None, &projects, LockScope::Projects, |draft, ctx| {
            purged.iter().cloned().for_each(|key| draft.delete(key));
            rules::adopt(draft, ctx, &identities)
        });
        adopted.await.map(drop)
    }
}
