//! What a registry is opened with.
//!
//! Plain values: nothing here reads a file, an environment variable or a network. The defaults are Feast's, and for the
//! pool SQLAlchemy's, which Feast hands its settings to.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{Error, Result, Retention};

mod authentication;
mod url;

pub use authentication::{KubernetesConfig, OidcConfig};
pub use url::RegistryUrl;

/// Everything that a registry is opened with. Made with [`new`](Self::new), and changed field by field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// Where the registry is stored.
    #[doc(alias("path"))]
    pub url: RegistryUrl,
    /// Where reads go instead, as to a replica of the database. `None`: to [`url`](Self::url), as writes do.
    #[doc(alias("read_path"))]
    pub read_url: Option<RegistryUrl>,
    /// Whether opening creates the tables, looks for them, or does neither.
    pub schema_mode: SchemaMode,
    /// Whether the registry is opened to be read alone: then nothing is made or changed, and
    /// [`schema_mode`](Self::schema_mode) is not [`Auto`](SchemaMode::Auto). Set by whoever opens it.
    pub read_only: bool,
    /// How what was read is kept in memory.
    pub cache: CacheConfig,
    /// How connections to a database are kept. Of no effect where the registry is a file.
    pub pool: PoolConfig,
    /// How an object store is used. Of no effect where the registry is in none.
    pub object_store: ObjectStoreConfig,
    /// Whether Feast's old table `feast_metadata`, from before there was a table of projects, is emptied and no longer
    /// written. Once done, this cannot be undone.
    pub purge_feast_metadata: bool,
    /// Whether the tables or the file of the registry stay when its last project is deleted. Feast drops its tables then,
    /// and with them go the rights that were granted on them. Default: no, as in Feast.
    pub keep_tables: bool,
    /// How much of the journal is kept.
    #[doc(alias("journal_retention_days", "journal_max_commits"))]
    pub journal: Retention,
    /// What the journal keeps of each change. Of no effect in a database, whose journal keeps all of it.
    pub history: History,
}

impl RegistryConfig {
    /// The registry at `url`, all else at its default.
    pub fn new(url: RegistryUrl) -> Self {
        Self {
            url,
            read_url: None,
            schema_mode: SchemaMode::default(),
            read_only: false,
            cache: CacheConfig::default(),
            pool: PoolConfig::default(),
            object_store: ObjectStoreConfig::default(),
            purge_feast_metadata: false,
            keep_tables: false,
            journal: Retention::default(),
            history: History::default(),
        }
    }

    /// Where reads go instead of to [`url`](Self::url), if that is another place.
    pub fn replica(&self) -> Option<&RegistryUrl> {
        self.read_url.as_ref().filter(|replica| **replica != self.url)
    }

    /// For storages that have no replicas.
    ///
    /// # Errors
    /// `InvalidConfig` when there is a [`replica`](Self::replica).
    pub fn refuse_replica(&self) -> Result<()> {
        match self.replica() {
            None => Ok(()),
            Some(replica) => Err(Error::config(format!(
                "`read_path` is `{replica}`, but a registry with a `{}://` URL has no replicas; leave it out",
                self.url.scheme()
            ))),
        }
    }

    /// The same, to be read alone: what is missing is not made.
    #[must_use]
    pub fn for_reading(mut self) -> Self {
        if self.schema_mode == SchemaMode::Auto {
            self.schema_mode = SchemaMode::Verify;
        }
        self.read_only = true;
        self
    }
}

/// How a registry in an object store is reached and written. Made with
/// [`new`](Self::new) or `default()`, and changed field by field.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ObjectStoreConfig {
    /// Settings by the names that they have as environment variables, as `AWS_ENDPOINT_URL` or `GOOGLE_SERVICE_ACCOUNT`.
    /// They come before the environment.
    pub settings: Vec<(String, String)>,
    /// What every write to S3 says besides, by the names of boto3's `put_object`, as `ServerSideEncryption` (Feast:
    /// `s3_additional_kwargs`).
    pub s3_additional_kwargs: Vec<(String, String)>,
    /// Whether a store may be used that does not do conditional writes: where several processes write, changes then get
    /// lost.
    pub allow_unconditional_writes: bool,
}

impl ObjectStoreConfig {
    /// These [`settings`](Self::settings); all else as by default.
    pub fn new(settings: Vec<(String, String)>) -> Self {
        Self { settings, ..Self::default() }
    }
}

impl fmt::Debug for ObjectStoreConfig {
    /// Shows the names of settings and not their values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |of: &[(String, String)]| of.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        f.debug_struct("ObjectStoreConfig")
            .field("settings", &names(&self.settings))
            .field("s3_additional_kwargs", &names(&self.s3_additional_kwargs))
            .field("allow_unconditional_writes", &self.allow_unconditional_writes)
            .finish()
    }
}

/// What opening a registry does about its tables.
///
/// Its text form, as in `feature_store.yaml`, is `auto`, `verify` or `skip`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SchemaMode {
    /// Creates the tables that are missing.
    #[default]
    Auto,
    /// Creates nothing, and fails if a table is missing.
    Verify,
    /// Creates nothing and looks at nothing. Reads find nothing where the journal alone is left of a registry.
    Skip,
}

impl SchemaMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Verify, Self::Skip];

    /// The text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Verify => "verify",
            Self::Skip => "skip",
        }
    }
}

/// When what the cache holds is read again.
///
/// Its text form, as in `feature_store.yaml`, is `sync` or `thread`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CacheMode {
    /// By the first reader after the time to live is over. A writer of this process sees its own write at once.
    #[default]
    Sync,
    /// In the background, once per time to live. No reader waits, and what a reader sees may be that old.
    Thread,
}

impl CacheMode {
    /// All modes.
    pub const ALL: [Self; 2] = [Self::Sync, Self::Thread];

    /// The text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Thread => "thread",
        }
    }
}

/// What the journal of a registry in a file keeps of each change.
///
/// Its text form, as in `feature_store.yaml`, is `keys` or `full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum History {
    /// Which keys it changed, and whether something was stored there before and since.
    #[default]
    Keys,
    /// The bytes before and since too, so that a change can be shown and taken back. All of the file is written with each commit,
    /// and this makes it larger.
    Full,
}

impl History {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Keys, Self::Full];

    /// The text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Full => "full",
        }
    }
}

macro_rules! text_form {
    ($($mode:ty: $what:literal),*) => {$(
        impl fmt::Display for $mode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $mode {
            type Err = Error;

            /// # Errors
            ///
            /// The text is no mode's; the error names those that there are.
            fn from_str(text: &str) -> Result<Self> {
                Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| {
                    let accepted = Self::ALL.map(|mode| format!("`{mode}`")).join(", ");
                    let text = text.escape_debug();
                    Error::config(format!(concat!("`{}` is no ", $what, "; there are {}"), text, accepted))
                })
            }
        }
    )*};
}

text_form!(SchemaMode: "schema mode", CacheMode: "cache mode", History: "kind of history");

/// How what was read is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheConfig {
    /// When it is read again.
    #[doc(alias("cache_mode"))]
    pub mode: CacheMode,
    /// For how long it is used before it is read again. Zero: it is read once and never expires. Default: 600 seconds.
    #[doc(alias("cache_ttl_seconds"))]
    pub ttl: Duration,
}

impl CacheConfig {
    /// A cache that is read again in this way, when what it holds is so old.
    pub const fn new(mode: CacheMode, ttl: Duration) -> Self {
        Self { mode, ttl }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { mode: CacheMode::Sync, ttl: Duration::from_secs(600) }
    }
}

/// How connections to a database are kept: SQLAlchemy's settings and its defaults. Made with [`new`](Self::new) or
/// `default()`, and changed field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[doc(alias("sqlalchemy_config_kwargs"))]
pub struct PoolConfig {
    /// How many connections are kept open for reuse. Zero: as many as are ever needed at once, without a limit,
    /// whatever [`max_overflow`](Self::max_overflow) is. Default: 5.
    #[doc(alias("pool_size"))]
    pub size: u32,
    /// How many connections may be opened beyond [`size`](Self::size); they are closed when they are given back.
    /// `u32::MAX`: no limit. Default: 10.
    pub max_overflow: u32,
    /// Whether a connection is tried, at the cost of a round trip, each time that it is taken from the pool.
    /// Default: no.
    #[doc(alias("pool_pre_ping"))]
    pub pre_ping: bool,
    /// The age at which a connection is replaced when it is next taken from the pool. `None`, the default: never.
    #[doc(alias("pool_recycle"))]
    pub recycle: Option<Duration>,
    /// Whether every statement is logged. Default: no.
    pub echo: bool,
    /// How long to wait for a connection while all that are allowed are in use. Default: 30 seconds.
    #[doc(alias("pool_timeout"))]
    pub timeout: Duration,
    /// Whether a database is to keep commits apart by its isolation level SERIALIZABLE alone (SQLAlchemy:
    /// `isolation_level`), where a backend has a way with less contention. Commits are serializable either way.
    /// Default: no.
    #[doc(alias("isolation_level"))]
    pub serializable: bool,
}

impl PoolConfig {
    /// So many connections that are kept open, and so many more where they are needed; all else as by default.
    pub fn new(size: u32, max_overflow: u32) -> Self {
        Self { size, max_overflow, ..Self::default() }
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            size: 5,
            max_overflow: 10,
            pre_ping: false,
            recycle: None,
            echo: false,
            timeout: Duration::from_secs(30),
            serializable: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_feasts() {
        let config = RegistryConfig::new("sqlite:///registry.db".parse().unwrap());
        assert_eq!(config.read_url, None);
        assert_eq!(config.schema_mode, SchemaMode::Auto);
        assert_eq!(config.cache, CacheConfig { mode: CacheMode::Sync, ttl: Duration::from_secs(600) });
        assert_eq!((config.pool.size, config.pool.max_overflow), (5, 10));
        assert_eq!((config.pool.pre_ping, config.pool.echo), (false, false));
        assert_eq!((config.pool.recycle, config.pool.timeout), (None, Duration::from_secs(30)));
        assert!(!config.purge_feast_metadata);
    }

    #[test]
    fn modes_read_back_what_they_print_and_name_each_other() {
        for mode in SchemaMode::ALL {
            assert_eq!(mode.to_string().parse::<SchemaMode>().unwrap(), mode);
        }
        for mode in CacheMode::ALL {
            assert_eq!(mode.to_string().parse::<CacheMode>().unwrap(), mode);
        }
        let error = "Auto".parse::<SchemaMode>().unwrap_err();
        assert_eq!(error.to_string(), "`Auto` is no schema mode; there are `auto`, `verify`, `skip`");
        assert_eq!(error.kind(), crate::ErrorKind::InvalidConfig);
        assert!("".parse::<CacheMode>().unwrap_err().to_string().contains("`sync`, `thread`"));
    }

    #[test]
    fn a_configuration_can_be_printed_without_its_passwords() {
        let mut config = RegistryConfig::new("postgresql://feast:hunter2@db/feast".parse().unwrap());
        config.read_url = Some("postgresql://feast:hunter2@replica/feast?sslpassword=hunter2".parse().unwrap());
        let printed = format!("{config:#?}");
        assert!(printed.contains("replica") && !printed.contains("hunter2"), "{printed}");
    }
}
