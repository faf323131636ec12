//! What is wrong with a configuration, before it is known which file it is of.

/// What is wrong, and in which line of the expanded text if it is in one.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) line: Option<usize>,
    pub(super) message: String,
}

/// A text for an error, unless it could be a URL with a password in it, or is too long.
pub(super) fn shown(text: &str) -> String {
    let harmless = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '_' | '-' | '.' | '+');
    match text.chars().count() {
        count if count > 40 || !text.chars().all(harmless) => format!("of {count} characters, which is not shown"),
        _ => format!("`{text}`"),
    }
}
