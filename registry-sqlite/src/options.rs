//! What the URL of a registry says about how its file is opened: the parameters that SQLAlchemy hands to Python's `sqlite3`.

use std::fmt;
use std::time::Duration;

use feast_registry_core::config::RegistryUrl;
use feast_registry_core::{Error, Result};

/// The options that are understood.
const OPTIONS: [&str; 8] = [
    "timeout",
    "mode",
    "journal_mode",
    "uri",
    "check_same_thread",
    "cached_statements",
    "isolation_level",
    "detect_types",
];

/// How SQLite keeps what a commit has not yet done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum JournalMode {
    /// In a `-wal`, in which commits stay until it is full. A file that is not in this mode is put into it for good, when it
    /// is first written. Readers never wait.
    #[default]
    Wal,
    /// As the file has it. A new one has a rollback journal, with which readers wait while a commit is written into the file.
    Keep,
}

/// How a file is opened, as the options of its URL say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// How long a write waits at the most while another process holds the lock (`timeout`, in seconds). `None`: as long as
    /// its call may take.
    pub timeout: Option<Duration>,
    /// Whether the registry is only to be read (`mode=ro`). It is for whoever opens the registry to see to that.
    pub read_only: bool,
    /// What becomes of the file's journal mode (`journal_mode`). This one is ours; Feast passes over it.
    pub journal_mode: JournalMode,
}

impl SqliteOptions {
    /// Reads them from a URL. Those that concern Python alone, as `check_same_thread`, have no effect.
    ///
    /// # Errors
    /// `InvalidConfig` for an option that is not known, or a value that cannot be.
    pub fn of_url(url: &RegistryUrl) -> Result<Self> {
        let wrong = |problem: fmt::Arguments<'_>| Error::config(format!("the registry's URL `{url}`: {problem}"));
        url.refuse_options_but(&OPTIONS)?;
        let mut options = Self::default();
        for (name, value) in url.query() {
            match name.as_str() {
                "timeout" => match value.parse::<f64>() {
                    Ok(seconds) if (0.0..=31_536_000.0).contains(&seconds) => {
                        options.timeout = Some(Duration::from_secs_f64(seconds));
                    }
                    _ => {
                        return Err(wrong(format_args!("`timeout` must be a number of seconds, and is `{value}`")));
                    }
                },
                "mode" => match value.as_str() {
                    "ro" => options.read_only = true,
                    "rwc" => options.read_only = false,
                    _ => {
                        let accepted = "`ro`, to read only, or `rwc`, which is the default";
                        return Err(wrong(format_args!("`mode` must be {accepted}, and is `{value}`")));
                    }
                },
                "journal_mode" => match value.to_ascii_lowercase().as_str() {
                    "wal" => options.journal_mode = JournalMode::Wal,
                    "keep" => options.journal_mode = JournalMode::Keep,
                    _ => {
                        let accepted = "`wal`, which is the default, or `keep`, to leave that of the file as it is";
                        return Err(wrong(format_args!("`journal_mode` must be {accepted}, and is `{value}`")));
                    }
                },
                _ => {}
            }
        }
        let is_uri = url.query().iter().any(|(name, value)| {
            name == "uri" && ["true", "1", "yes", "on", "y", "t"].contains(&value.to_ascii_lowercase().as_str())
        });
        if is_uri && let Some(path) = url.database().and_then(|path| path.strip_prefix("file:")) {
            // Without the slashes before a host, which is not there.
            let path = path.strip_prefix("//").unwrap_or(path);
            return Err(wrong(format_args!(
                "a `file:` path with `uri=true` is not read here; write the plain path, as `sqlite:///{path}`"
            )));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<SqliteOptions> {
        SqliteOptions::of_url(&url.parse().expect("a URL"))
    }

    fn problem(url: &str) -> String {
        parse(url).expect_err(url).to_string()
    }

    #[test]
    fn a_url_says_how_the_file_is_opened() {
        let options = |timeout: Option<u64>, read_only| SqliteOptions {
            timeout: timeout.map(Duration::from_millis),
            read_only,
            ..SqliteOptions::default()
        };
        for (query, expected) in [
            ("", options(None, false)),
            ("?timeout=2.5", options(Some(2500), false)),
            ("?timeout=0", options(Some(0), false)),
            ("?mode=ro", options(None, true)),
            ("?mode=ro&uri=true", options(None, true)),
            ("?mode=rwc", options(None, false)),
            (
                "?check_same_thread=false&cached_statements=9&isolation_level=IMMEDIATE&detect_types=0&uri=false",
                options(None, false),
            ),
        ] {
            assert_eq!(parse(&format!("sqlite:///registry.db{query}")).expect(query), expected, "{query}");
        }
        for (query, expected) in
            [("", JournalMode::Wal), ("?journal_mode=WAL", JournalMode::Wal), ("?journal_mode=keep", JournalMode::Keep)]
        {
            assert_eq!(parse(&format!("sqlite:///registry.db{query}")).expect(query).journal_mode, expected, "{query}");
        }
        assert_eq!(parse("sqlite:///file:registry.db").expect("a file of that name"), SqliteOptions::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(problem("sqlite:///x.db?moed=ro").contains("no option `moed`; there are timeout, mode"));
        assert!(!problem("sqlite:///x.db?pasword=geheim").contains("geheim"));
        assert!(problem("sqlite:///x.db?mode=memory").contains("`mode` must be `ro`"));
        assert!(problem("sqlite:///x.db?journal_mode=delete").contains("`journal_mode` must be `wal`"));
        for value in ["soon", "-1", "nan", "inf"] {
            assert!(
                problem(&format!("sqlite:///x.db?timeout={value}")).contains("`timeout` must be a number of seconds")
            );
        }
        let uri = problem("sqlite:///file:z3.db?mode=ro&uri=true");
        assert!(uri.ends_with("write the plain path, as `sqlite:///z3.db`"), "{uri}");
        let uri = problem("sqlite:///file:///var/z3.db?uri=1");
        assert!(uri.ends_with("as `sqlite:////var/z3.db`"), "{uri}");
    }
}
