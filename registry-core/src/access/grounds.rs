//! Which project it is that is decided about, and whose.

use bytes::Bytes;

use crate::backend::{Expected, Key};

/// What decisions about a project go by besides its permissions.
///
/// Permissions may be a second old. Whose a project is, and whether it is still the same, must not be: who was taken for its maker a
/// moment too long could have it for good. So a write compares this with what it has read, and its commit expects that it stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grounds {
    /// Whether the project is there.
    pub(crate) is_there: bool,
    /// Which one of its name it is.
    uuid: Option<Bytes>,
    /// Who made it.
    creator: Option<Bytes>,
}

impl Grounds {
    /// Where they are stored.
    pub(crate) fn keys(project: &str) -> [Key; 3] {
        [Key::project_object(project), Key::metadata(project, Key::PROJECT_UUID), Key::metadata(project, Key::CREATOR)]
    }

    /// Those of a project, by what is stored under keys.
    pub(crate) fn of(project: &str, stored: impl Fn(&Key) -> Option<Bytes>) -> Self {
        let [object, uuid, creator] = Self::keys(project).map(|key| stored(&key));
        Self::new(object.is_some(), uuid, creator)
    }

    /// Those of a project that is there or not, with this UUID and this maker.
    pub(crate) fn new(is_there: bool, uuid: Option<Bytes>, creator: Option<Bytes>) -> Self {
        Self { is_there, uuid, creator }
    }

    /// Whether somebody of this name made the project.
    pub(crate) fn is_creator(&self, name: &str) -> bool {
        self.creator.as_ref().is_some_and(|creator| *creator == name.as_bytes())
    }

    /// What a commit has to expect, so that they hold when it is done.
    pub(crate) fn expectations(&self, project: &str) -> [(Key, Expected); 2] {
        let [_, uuid, creator] = Self::keys(project);
        let expected = |value: &Option<Bytes>| value.clone().map_or(Expected::Absent, Expected::Value);
        [(uuid, expected(&self.uuid)), (creator, expected(&self.creator))]
    }
}
