//! Who a command writes for, and why: what the journal of the registry keeps of it.

use std::env;

use clap::Args;
use feast_registry::CallOptions;
use nix::unistd::{Uid, User, gethostname};

use super::text;

/// The longest user name that is taken as it is, in characters.
const LONGEST_USER: usize = 128;
/// The longest reason, in characters.
const LONGEST_REASON: usize = 1024;

/// Why a command writes. Its author is who runs it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Origin {
    /// Why this is done: the registry's journal keeps it, and `log` shows it.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
}

impl Origin {
    /// Calls that the journal has as the user's on this host, for the reason that was given.
    pub(crate) fn call(&self) -> CallOptions {
        let call = CallOptions::new().with_author(author());
        match &self.reason {
            Some(reason) => call.with_reason(reason),
            None => call,
        }
    }
}

fn reason(text: &str) -> Result<String, String> {
    let reason = text::clean(text.trim());
    match reason.chars().count() {
        0 => Err("a reason has some text".to_owned()),
        1..=LONGEST_REASON => Ok(reason),
        length => Err(format!("a reason has at most {LONGEST_REASON} characters, and this has {length}")),
    }
}

/// Who runs this process, as `alice@laptop`.
fn author() -> String {
    let uid = Uid::current();
    let variables =
        ["LOGNAME", "USER"].into_iter().find_map(|name| env::var(name).ok().filter(|user| !user.is_empty()));
    let user = variables.or_else(|| User::from_uid(uid).ok().flatten().map(|user| user.name));
    let host = gethostname().ok().and_then(|host| host.into_string().ok()).filter(|host| !host.is_empty());
    named(user, uid, host)
}

/// A user of a host in words; a user without a name by their number.
fn named(user: Option<String>, uid: Uid, host: Option<String>) -> String {
    let user =
        user.map_or_else(|| format!("uid-{uid}"), |user| text::clean(&user).chars().take(LONGEST_USER).collect());
    match host {
        Some(host) => format!("{user}@{}", text::clean(&host)),
        None => user,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_is_a_user_of_a_host_as_far_as_these_are_known() {
        let uid = Uid::from_raw(1000);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(named(some("alice"), uid, some("laptop")), "alice@laptop");
        assert_eq!(named(None, uid, some("3f2a")), "uid-1000@3f2a");
        assert_eq!(named(some("al\u{1b}ice"), uid, None), "al\\u{1b}ice");
        assert_eq!(named(Some("x".repeat(9000)), uid, None).len(), LONGEST_USER);
    }

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        assert_eq!(reason(" two\nlines\u{1b} ").as_deref(), Ok("two lines\\u{1b}"));
        assert!(reason(" \n").is_err());
        assert!(reason(&"x".repeat(LONGEST_REASON)).is_ok());
        assert!(reason(&"x".repeat(LONGEST_REASON + 1)).is_err_and(|error| error.contains("1025")));
    }
}
