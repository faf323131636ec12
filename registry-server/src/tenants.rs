//! What one caller may have under way at once, so that nobody takes what others need: calls, and memory for what they send and
//! are sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::complaints::Complaint;

/// What memory is counted in.
const UNIT: usize = 1024;
/// How many callers may be remembered before those who have nothing under way are forgotten.
const SWEPT_AT: usize = 1024;

/// What each caller may have under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantLimits {
    /// How many calls. More are refused. Default: 512.
    pub calls: usize,
    /// How many bytes of requests and answers beyond small ones. Default: 64 MiB. One that is larger has all of it.
    pub bytes: usize,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self { calls: 512, bytes: 64 << 20 }
    }
}

/// Callers by name.
#[derive(Debug)]
pub(crate) struct Tenants {
    limits: TenantLimits,
    by_name: Mutex<HashMap<String, Weak<Tenant>>>,
}

/// A caller who has something under way.
#[derive(Debug)]
pub(crate) struct Tenant {
    calls: Arc<Semaphore>,
    memory: Memory,
}

/// A caller's memory. Cloning gives another handle on the same.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    room: Arc<Semaphore>,
    units: usize,
}

/// A call among those that its caller may have, until this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    tenant: Arc<Tenant>,
    _call: OwnedSemaphorePermit,
}

impl Tenants {
    pub(crate) fn new(limits: TenantLimits) -> Self {
        Self { limits, by_name: Mutex::default() }
    }

    /// A place for a call of somebody.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when they have as many under way as they may.
    pub(crate) fn begin(&self, name: &str) -> Result<Share, Status> {
        let tenant = self.tenant(name);
        match Arc::clone(&tenant.calls).try_acquire_owned() {
            Ok(call) => Ok(Share { tenant, _call: call }),
            Err(_) => {
                static REFUSED: Complaint = Complaint::new();
                let number = self.limits.calls;
                REFUSED.say(|more| {
                    tracing::warn!(user = name, "a call was refused, since its caller has {number} under way{more}");
                });
                Err(Status::resource_exhausted(format!(
                    "`{name}` has {number} calls under way, which is all that one caller may have; nothing was done: try again later"
                )))
            }
        }
    }

    fn tenant(&self, name: &str) -> Arc<Tenant> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = by_name.get(name).and_then(Weak::upgrade) {
            return tenant;
        }
        if by_name.len() >= SWEPT_AT && by_name.len() == by_name.capacity() {
            by_name.retain(|_, tenant| tenant.strong_count() > 0);
        }
        let units = self.limits.bytes.div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let calls = Arc::new(Semaphore::new(self.limits.calls.min(Semaphore::MAX_PERMITS)));
        let memory = Memory { room: Arc::new(Semaphore::new(units)), units };
        let tenant = Arc::new(Tenant { calls, memory });
        by_name.insert(name.to_owned(), Arc::downgrade(&tenant));
        tenant
    }
}

impl Share {
    /// Of the caller, for requests and answers.
    pub(crate) fn memory(&self) -> &Memory {
        &self.tenant.memory
    }
}

impl Memory {
    /// Room for so many bytes, now; all that there is if they are more. `None`: there is not so much.
    pub(crate) fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_many_owned(self.units_of(bytes)).ok()
    }

    /// The same, once there is so much. Cancel-safe.
    pub(crate) async fn wait_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).acquire_many_owned(self.units_of(bytes)).await.ok()
    }

    /// How many bytes more than these `taken` has room for, which has room in it.
    pub(crate) fn add(&self, taken: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> bool {
        let has = taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = (self.units_of(bytes) as usize).saturating_sub(has);
        let Ok(missing) = u32::try_from(missing) else { return false };
        if missing == 0 {
            return true;
        }
        let Ok(more) = Arc::clone(&self.room).try_acquire_many_owned(missing) else { return false };
        match taken {
            Some(taken) => taken.merge(more),
            none => *none = Some(more),
        }
        true
    }

    fn units_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT).min(self.units)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn one_caller_cannot_take_what_others_need() {
        let tenants = Tenants::new(TenantLimits { calls: 2, bytes: 10 * UNIT });
        let (first, second) = (tenants.begin("ann").expect("a place"), tenants.begin("ann").expect("a place"));
        assert_eq!(tenants.begin("ann").expect_err("there is none left").code(), Code::ResourceExhausted);
        let other = tenants.begin("bob").expect("another has their own");
        let room = first.memory().take(6 * UNIT).expect("there is room");
        assert!(second.memory().take(6 * UNIT).is_none(), "it is one for all calls of a caller");
        assert!(other.memory().take(6 * UNIT).is_some());
        drop(room);
        let all = second.memory().take(1000 * UNIT).expect("what is larger has all of it");
        assert!(first.memory().take(1).is_none());
        drop((all, second));
        tenants.begin("ann").expect("there is a place again");
    }

    #[test]
    fn a_request_that_grows_takes_what_it_is_missing() {
        let tenants = Tenants::new(TenantLimits { calls: 2, bytes: 10 * UNIT });
        let (share, mut room) = (tenants.begin("ann").expect("a place"), None);
        assert!(share.memory().add(&mut room, 4 * UNIT) && share.memory().add(&mut room, 8 * UNIT));
        assert!(share.memory().take(3 * UNIT).is_none() && share.memory().take(2 * UNIT).is_some());
        assert!(share.memory().add(&mut room, 3 * UNIT), "it has that already");
        drop(room);
        assert!(share.memory().take(10 * UNIT).is_some());
    }

    #[test]
    fn who_has_nothing_under_way_is_forgotten() {
        let tenants = Tenants::new(TenantLimits::default());
        for number in 0..10 * SWEPT_AT {
            tenants.begin(&format!("{number}")).expect("a place");
        }
        assert!(tenants.by_name.lock().expect("not poisoned").len() < 4 * SWEPT_AT);
    }
}
