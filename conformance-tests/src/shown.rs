//! Keys, records and values as failures show them: long ones with their length and their beginning.

use bytes::Bytes;
use feast_registry_core::{Change, Expected, Image, Key, Outcome, Record, Target, Write};

/// So many characters of a name, bytes of a value, and items of a list are shown.
const CHARS: usize = 48;
const BYTES: usize = 80;
const ITEMS: usize = 12;

/// So many bytes of a whole message.
const MESSAGE: usize = 6000;

/// What can be shown in a failure.
pub(crate) trait Shown {
    fn shown(&self) -> String;
}

/// A key, a record, a value, or several of them, as a failure shows them.
pub(crate) fn shown(of: &(impl Shown + ?Sized)) -> String {
    of.shown()
}

/// Where two values first differ, in a clause of its own; nothing if they do not.
pub(crate) fn difference(expected: &[u8], found: &[u8]) -> String {
    const AROUND: usize = 8;
    let Some(at) = (0..expected.len().max(found.len())).find(|&at| expected.get(at) != found.get(at)) else {
        return String::new();
    };
    let around = |of: &[u8]| {
        let (begin, end) = (at.saturating_sub(AROUND).min(of.len()), (at + AROUND).min(of.len()));
        of[begin..end].escape_ascii().to_string()
    };
    format!("; the first difference is at byte {at}: `{}` and `{}`", around(expected), around(found))
}

/// A message without its middle, if it is too long to be read.
pub(crate) fn shortened(message: &str) -> String {
    if message.len() <= MESSAGE {
        return message.to_owned();
    }
    let (head, tail) =
        (message.floor_char_boundary(MESSAGE * 3 / 4), message.ceil_char_boundary(message.len() - MESSAGE / 4));
    format!("{} […{} bytes…] {}", &message[..head], tail - head, &message[tail..])
}

impl<T: Shown + ?Sized> Shown for &T {
    fn shown(&self) -> String {
        (**self).shown()
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> String {
        self.as_ref().map_or("nothing".to_owned(), Shown::shown)
    }
}

impl<T: Shown> Shown for [T] {
    fn shown(&self) -> String {
        let mut text = self.iter().take(ITEMS).map(Shown::shown).collect::<Vec<_>>().join(", ");
        if self.len() > ITEMS {
            text.push_str(&format!(", … ({} in all)", self.len()));
        }
        format!("[{text}]")
    }
}

impl<T> Shown for Vec<T>
where
    [T]: Shown,
{
    fn shown(&self) -> String {
        self.as_slice().shown()
    }
}

/// Bytes.
impl Shown for [u8] {
    fn shown(&self) -> String {
        let rest = if self.len() > BYTES { "…" } else { "" };
        format!("{} bytes `{}{rest}`", self.len(), self[..self.len().min(BYTES)].escape_ascii())
    }
}

impl Shown for Bytes {
    fn shown(&self) -> String {
        (**self).shown()
    }
}

/// A name.
impl Shown for str {
    fn shown(&self) -> String {
        match self.char_indices().nth(CHARS) {
            Some((end, _)) => format!("\"{}…\" ({} characters)", self[..end].escape_debug(), self.chars().count()),
            None => format!("\"{}\"", self.escape_debug()),
        }
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        self.as_str().shown()
    }
}

impl Shown for usize {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for Key {
    fn shown(&self) -> String {
        match self {
            Key::Object { kind, project, name } => format!("{kind} {} of project {}", shown(name), shown(project)),
            Key::Version { project, view, number } => {
                format!("version {number} of view {} of project {}", shown(view), shown(project))
            }
            Key::UserMetadata { kind, project, view } => {
                format!("user metadata of {kind} {} of project {}", shown(view), shown(project))
            }
            Key::Metadata { project, name } => format!("fact {} about project {}", shown(name), shown(project)),
        }
    }
}

impl Shown for Record {
    fn shown(&self) -> String {
        format!("{} = {} (written at {})", shown(&self.key), shown(&self.value), self.updated)
    }
}

impl Shown for Expected {
    fn shown(&self) -> String {
        match self {
            Expected::Absent => "absent".to_owned(),
            Expected::Present => "present".to_owned(),
            Expected::Value(value) => shown(value),
        }
    }
}

impl Shown for Write {
    fn shown(&self) -> String {
        match self {
            Write::Put(record) => format!("put {}", shown(record)),
            Write::Delete(key) => format!("delete {}", shown(key)),
            Write::DeleteVersions { project, view } => {
                format!("delete the history of view {} of project {}", shown(view), shown(project))
            }
            Write::DeleteProject { project } => format!("delete everything of project {}", shown(project)),
        }
    }
}

impl Shown for Target {
    fn shown(&self) -> String {
        match self {
            Target::Key(key) => shown(key),
            Target::Versions { project, view } => {
                format!("the history of view {} of project {}", shown(view), shown(project))
            }
            Target::Project { project } => format!("all of project {}", shown(project)),
        }
    }
}

impl Shown for Image {
    fn shown(&self) -> String {
        match self {
            Image::Absent => "nothing".to_owned(),
            Image::NotKept => "something".to_owned(),
            Image::Value(value) => shown(value),
        }
    }
}

/// What was, and what is since.
impl Shown for (Image, Image) {
    fn shown(&self) -> String {
        format!("{} → {}", shown(&self.0), shown(&self.1))
    }
}

impl Shown for Change {
    fn shown(&self) -> String {
        format!("{}: {} → {}", shown(&self.target), shown(&self.before), shown(&self.after))
    }
}

impl Shown for Outcome {
    fn shown(&self) -> String {
        match self {
            Outcome::Conflict(key) => format!("a conflict at {}", shown(key)),
            other => format!("{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use feast_registry_core::Kind;

    use super::*;

    #[test]
    fn what_is_long_is_shown_by_its_length_and_its_beginning() {
        let long = "n".repeat(255);
        let text = shown(&Key::object(Kind::Entity, "p", &long));
        assert!(text.contains("(255 characters)") && text.len() < 150, "{text}");
        assert_eq!(shown(&Key::object(Kind::Entity, "p", "é\n")), "entity \"é\\n\" of project \"p\"");
        let text = shown(&vec![0_u8; 1 << 20]);
        assert!(text.starts_with("1048576 bytes `\\x00") && text.len() < 400, "{text}");
        assert_eq!(shown(&[1_usize, 2].to_vec()), "[1, 2]");
        assert!(shown(&(0..1000).collect::<Vec<usize>>()).ends_with("11, … (1000 in all)]"));
    }

    #[test]
    fn values_are_compared_where_they_first_differ() {
        assert_eq!(difference(b"abc", b"abc"), "");
        assert_eq!(difference(b"abc", b"abd"), "; the first difference is at byte 2: `abc` and `abd`");
        assert_eq!(difference(b"abc", b""), "; the first difference is at byte 0: `abc` and ``");
        let (one, other) = (vec![b'x'; 5000], [vec![b'x'; 4000], vec![b'y'; 1000]].concat());
        let text = difference(&one, &other);
        assert!(text.contains("at byte 4000: `xxxxxxxxxxxxxxxx` and `xxxxxxxxyyyyyyyy`"), "{text}");
    }

    #[test]
    fn a_message_keeps_its_two_ends() {
        assert_eq!(shortened("short"), "short");
        let text = shortened(&format!("begin {} end", "é".repeat(100_000)));
        assert!(text.starts_with("begin é") && text.ends_with("é end") && text.len() < 7000);
        assert!(text.contains("bytes…]"));
    }
}
