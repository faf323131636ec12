//! What is done with an object.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Something that a permission may allow (Feast: `AuthzedAction`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// To make an object that was not there.
    Create,
    /// To see it, as it is, was, or depends on others.
    Describe,
    /// To put another in its place.
    Update,
    /// To remove it.
    Delete,
    /// To read from the online store, which this registry does not do.
    ReadOnline,
    /// To read from the offline store, which this registry does not do.
    ReadOffline,
    /// To write to the online store; here, to record that it was written to.
    WriteOnline,
    /// To write to the offline store, which this registry does not do.
    WriteOffline,
}

impl Action {
    /// All of them, in the order of their numbers in Feast's messages.
    pub const ALL: [Action; 8] = [
        Action::Create,
        Action::Describe,
        Action::Update,
        Action::Delete,
        Action::ReadOnline,
        Action::ReadOffline,
        Action::WriteOnline,
        Action::WriteOffline,
    ];

    /// The name in Feast's messages, as `CREATE`.
    pub fn name(self) -> &'static str {
        match self {
            Action::Create => "CREATE",
            Action::Describe => "DESCRIBE",
            Action::Update => "UPDATE",
            Action::Delete => "DELETE",
            Action::ReadOnline => "READ_ONLINE",
            Action::ReadOffline => "READ_OFFLINE",
            Action::WriteOnline => "WRITE_ONLINE",
            Action::WriteOffline => "WRITE_OFFLINE",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Action {
    type Err = Error;

    /// The name in Feast's messages, in letters of any case.
    fn from_str(name: &str) -> Result<Self> {
        let found = Action::ALL.into_iter().find(|action| action.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            let names = Action::ALL.map(Action::name).join(", ");
            Error::invalid(format!("there is no action `{name}`; there are {names}"))
        })
    }
}

/// A set of actions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Actions(u8);

impl Actions {
    /// No action.
    pub const NONE: Actions = Actions(0);
    /// What replaces an object: its writer must see what it replaces (Feast: `assert_permissions_to_update`).
    pub(crate) const REPLACE: Actions = Actions((1 << Action::Describe as u8) | (1 << Action::Update as u8));

    /// Whether all of these actions are among them.
    pub fn include(self, actions: Actions) -> bool {
        self.0 & actions.0 == actions.0
    }

    /// The actions, in the order of [`Action::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().filter(move |action| self.include(Actions::from(*action)))
    }
}

impl From<Action> for Actions {
    fn from(action: Action) -> Self {
        Actions(1 << action as u8)
    }
}

impl BitOr for Actions {
    type Output = Actions;

    fn bitor(self, other: Actions) -> Actions {
        Actions(self.0 | other.0)
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<T: IntoIterator<Item = Action>>(actions: T) -> Self {
        actions.into_iter().map(Actions::from).fold(Actions::NONE, BitOr::bitor)
    }
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, action) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { " and " };
            write!(f, "{separator}{action}")?;
        }
        Ok(())
    }
}
