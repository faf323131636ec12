//! What there is to say about a configuration, before it is known which file it is of.

use std::cell::RefCell;

/// Something to say, and in which line of the expanded text if it is about one.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) line: Option<usize>,
    pub(super) message: String,
}

/// All that was found while a configuration was read. Reading goes on after an error, so that its author learns of all of
/// them at once.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Findings {
    /// The configuration cannot be used.
    pub(super) fn error(&self, problem: Problem) {
        self.errors.borrow_mut().push(problem);
    }

    /// The configuration can be used, and may not do what its author believes.
    pub(super) fn warning(&self, problem: Problem) {
        self.warnings.borrow_mut().push(problem);
    }

    /// Errors and warnings, each in the order of their lines.
    pub(super) fn into_sorted(self) -> (Vec<Problem>, Vec<Problem>) {
        let sorted = |problems: RefCell<Vec<Problem>>| {
            let mut problems = problems.into_inner();
            problems.sort_by_key(|problem| problem.line);
            problems
        };
        (sorted(self.errors), sorted(self.warnings))
    }
}

/// A text for an error, unless it could be a URL with a password in it, or is too long.
pub(super) fn shown(text: &str) -> String {
    let harmless = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '_' | '-' | '.' | '+');
    match text.chars().count() {
        count if count > 40 || !text.chars().all(harmless) => format!("of {count} characters, which is not shown"),
        _ => format!("`{text}`"),
    }
}
