//! What `--log` and `RUST_LOG` mean.

use anyhow::{Context, Result, bail};
use feast_registry_core::STORAGE_SPANS;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::missing::distance;

/// What is logged unless something else is said.
pub(super) const DEFAULT_LOG: &str = "info";

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// What the levels are called elsewhere.
const FOREIGN: [(&str, &str); 7] = [
    ("critical", "error"),
    ("fatal", "error"),
    ("severe", "error"),
    ("notice", "info"),
    ("verbose", "debug"),
    ("all", "trace"),
    ("none", "off"),
];

/// What is logged, and what about it is to be told.
#[derive(Debug)]
pub(super) struct LogFilter {
    pub(super) filter: EnvFilter,
    /// Single words that are no levels, and were taken for the names of targets.
    pub(super) targets: Vec<String>,
}

impl LogFilter {
    /// # Errors
    /// When it is no filter, or has a word in it that seems to be meant for a level and is none.
    pub(super) fn parse(log: &str) -> Result<Self> {
        let directives: Vec<&str> = log.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
        let mut targets = Vec::new();
        for word in directives.iter().filter(|directive| is_bare_word(directive)) {
            if word.chars().all(|c| c.is_ascii_digit()) {
                bail!("--log: there is no level `{word}`; levels are {}, or 5 (trace) to 0 (off)", LEVELS.join(", "));
            }
            if let Some(level) = meant_level(word) {
                bail!("--log: there is no level `{word}`; did you mean `{level}`? (`{word}=trace` names a target)");
            }
            targets.push((*word).to_owned());
        }
        // Put together anew, since a space before the name of a target would be taken for a part of it.
        let filter = EnvFilter::try_new(with_quiet_libraries(&directives.join(",")))
            .with_context(|| format!("--log: `{log}` is not a filter"))?;
        Ok(Self { filter, targets })
    }
}

/// A level alone is about this program: what the libraries below it say of every frame would hide a line per request.
/// `trace`, or a filter that names targets, is taken as it is, but for the spans that are for traces alone.
fn with_quiet_libraries(log: &str) -> String {
    // An environment variable that is set to nothing says nothing.
    let log = if log.is_empty() { DEFAULT_LOG } else { log };
    let filter = match log.parse::<LevelFilter>() {
        Ok(level) if level != LevelFilter::OFF && level != LevelFilter::TRACE => {
            let quiet = [
                "hyper",
                "hyper_util",
                "tower",
                "tonic",
                "rustls",
                "tokio_postgres",
                "mysql_async",
                "reqwest",
                "opentelemetry",
                "opentelemetry_sdk",
                "opentelemetry-otlp",
            ];
            // What it warns of are clients who reset many calls; they would fill the log.
            quiet.iter().fold(format!("{level},h2=error"), |filter, library| format!("{filter},{library}=warn"))
        }
        _ => log.to_owned(),
    };
    format!("{filter},{STORAGE_SPANS}=off")
}

/// Whether it is a single word that is no level. It is valid, as the name of a target all of whose lines are logged.
fn is_bare_word(directive: &str) -> bool {
    directive.chars().all(|c| c.is_ascii_alphanumeric()) && directive.parse::<LevelFilter>().is_err()
}

/// The level that a word seems to be meant for: one that is a slip away from it, begins or goes on in the same way, or is called so
/// elsewhere. As the name of a target it would silence all that was to be logged.
fn meant_level(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let foreign = FOREIGN.iter().find(|(name, _)| *name == word).map(|(_, level)| *level);
    let is_alike = |level: &str| {
        let slips = if level.len() > 4 { 2 } else { 1 };
        let is_part = word.len() > 2 && level.len() > 3 && (word.starts_with(level) || level.starts_with(&word));
        // Letters that have changed places would be two slips.
        is_part || sorted(&word) == sorted(level) || distance(&word, level, slips) <= slips
    };
    foreign.or_else(|| LEVELS.into_iter().find(|level| is_alike(level)))
}

fn sorted(word: &str) -> Vec<u8> {
    let mut letters = word.as_bytes().to_vec();
    letters.sort_unstable();
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault: what names a target, as filters may, was refused like a level that is none.
    #[test]
    fn a_word_that_is_no_level_is_a_target() {
        for (log, targets) in [
            ("", &[][..]),
            ("info", &[]),
            ("WARN", &[]),
            ("off", &[]),
            ("3", &[]),
            ("hyper=3,0", &[]),
            ("info,hyper=debug", &[]),
            ("feast_registry_core=debug", &[]),
            ("warn, feast_registry::x", &[]),
            ("opentelemetry-otlp", &[]),
            ("[storage]=debug", &[]),
            ("hyper", &["hyper"]),
            ("info, h2,tower", &["h2", "tower"]),
            ("want,tracing", &["want", "tracing"]),
            ("rustls,tonic,reqwest,mio,ring,s3,sqlite", &["rustls", "tonic", "reqwest", "mio", "ring", "s3", "sqlite"]),
        ] {
            assert_eq!(LogFilter::parse(log).expect(log).targets, targets, "{log}");
        }
    }

    #[test]
    fn a_word_that_is_meant_for_a_level_is_refused() {
        for (log, level) in [
            ("inof", "info"),
            ("Inf", "info"),
            ("debgu", "debug"),
            ("info,debgu", "debug"),
            ("eror", "error"),
            ("err", "error"),
            ("warning", "warn"),
            ("tracee", "trace"),
            ("of", "off"),
            ("verbose", "debug"),
            ("FATAL", "error"),
        ] {
            let error = LogFilter::parse(log).expect_err(log).to_string();
            assert!(error.contains(&format!("did you mean `{level}`?")), "{log}: {error}");
        }
        let error = LogFilter::parse("6").expect_err("there are six").to_string();
        assert!(error.contains("there is no level `6`") && error.contains("5 (trace)"), "{error}");
        assert!(LogFilter::parse("hyper=inof").is_err());
    }

    #[test]
    fn a_level_is_about_this_program_however_it_is_written() {
        for level in ["info", "INFO", "3"] {
            assert!(with_quiet_libraries(level).starts_with("info,h2=error,hyper=warn"), "{level}");
        }
        assert!(with_quiet_libraries("").starts_with("info,"));
        for filter in ["trace", "off", "info,hyper=debug", "hyper"] {
            assert_eq!(with_quiet_libraries(filter), format!("{filter},{STORAGE_SPANS}=off"));
        }
    }

    /// Fault: the filter's own reading takes spaces for a part of the name of a target.
    #[test]
    fn spaces_mean_nothing() {
        let told = |log: &str| LogFilter::parse(log).expect(log).filter.to_string();
        assert_eq!(told(" warn , hyper=debug,"), told("warn,hyper=debug"));
    }
}
