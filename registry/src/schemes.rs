//! Registries opened by their URLs, with the backends that a program has.

use std::sync::Arc;

use feast_registry_core::config::{RegistryConfig, RegistryUrl};
use feast_registry_core::{Backend, Error, ErrorKind, MemoryScheme, Registry, RegistryOptions, Result, Scheme};

use crate::{known, mistaken};

/// The schemes that a program opens registries with. `default()` are those of the backends that are compiled in (the Cargo
/// features of this crate), and `memory`; those of other crates are added [`with`](Self::with).
///
/// It is a value that is handed on, and cheap to clone: nothing is registered behind a program's back, and two parts of one
/// program may have different ones.
#[derive(Debug, Clone)]
pub struct Schemes {
    /// Of two that have a name in common, the later one counts.
    all: Vec<Arc<dyn Scheme>>,
}

impl Default for Schemes {
    fn default() -> Self {
        Self {
            // Those that are named first come last.
            all: vec![
                Arc::new(MemoryScheme),
                #[cfg(feature = "mysql")]
                Arc::new(feast_registry_mysql::MySqlScheme),
                #[cfg(feature = "postgres")]
                Arc::new(feast_registry_postgres::PostgresScheme),
                #[cfg(any(feature = "file", feature = "s3", feature = "gcs", feature = "azure"))]
                Arc::new(feast_registry_file::FileScheme),
                #[cfg(feature = "sqlite")]
                Arc::new(feast_registry_sqlite::SqliteScheme),
            ],
        }
    }
}

impl Schemes {
    /// The same with another scheme. It takes the place of one of the same name.
    ///
    /// # Panics
    /// When a name of the scheme can be in no URL: one begins with a letter, and has small letters, digits, `-`, `.` and `_`.
    #[must_use]
    pub fn with(mut self, scheme: impl Scheme) -> Self {
        for name in scheme.names() {
            let parsed = format!("{name}://").parse::<RegistryUrl>();
            let is_possible = *name == "file" || parsed.is_ok_and(|url| url.scheme() == *name);
            assert!(is_possible, "the scheme {scheme:?} has the name `{name}`, which can be in no URL");
        }
        self.all.push(Arc::new(scheme));
        self
    }

    /// The names of all schemes, as `sqlite`; what is registered last comes first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let mut named = Vec::new();
        self.in_order().flat_map(|scheme| scheme.names().iter().copied()).filter(move |name| {
            let is_new = !named.contains(name);
            named.push(*name);
            is_new
        })
    }

    /// A URL of each scheme, for help and completions; what is registered last comes first.
    pub fn examples(&self) -> impl Iterator<Item = &'static str> {
        self.in_order().map(|scheme| scheme.example())
    }

    /// Without those whose names a later one has taken.
    fn in_order(&self) -> impl Iterator<Item = &dyn Scheme> {
        let is_taken = |at: usize, name: &str| self.all[at + 1..].iter().any(|later| later.names().contains(&name));
        let in_use =
            move |(at, scheme): &(usize, &Arc<dyn Scheme>)| scheme.names().iter().any(|name| !is_taken(*at, name));
        self.all.iter().enumerate().rev().filter(in_use).map(|(_, scheme)| &**scheme)
    }

    /// What serves a URL.
    fn of(&self, url: &RegistryUrl) -> Result<&dyn Scheme> {
        let serves = |scheme: &&Arc<dyn Scheme>| scheme.names().contains(&url.scheme());
        self.all.iter().rev().find(serves).map(|scheme| &**scheme).ok_or_else(|| self.not_served(url))
    }

    fn not_served(&self, url: &RegistryUrl) -> Error {
        let scheme = url.scheme();
        let remedy = match (known::usual_scheme(scheme), known::feature_of(scheme)) {
            (Some(usual), _) => format!("write `{usual}://` instead of `{scheme}://`"),
            (None, Some(feature)) => format!(
                "this program is built without it; the Cargo feature `{feature}` of the crates `feast-registry` and \
                 `feast-registry-server` adds it"
            ),
            (None, None) => format!(
                "this program has no backend for `{scheme}://`; if another crate has one, use a program that is built with \
                 it (`Schemes::with` in the documentation of the crate `feast-registry`)"
            ),
        };
        let there_are = self.names().collect::<Vec<_>>().join("://, ");
        Error::config(format!("the registry `{url}` cannot be opened: {remedy}. It opens {there_are}://"))
    }

    /// Opens the registry that a configuration names. One that is only to be read, as it says itself or its URL with `mode=ro`
    /// of SQLite, is opened by [`open_read_only`](Self::open_read_only).
    ///
    /// # Errors
    /// `InvalidConfig` when no scheme serves the URL, or when it names a file of another kind; else what [`Registry::open`]
    /// says.
    pub async fn open(&self, config: &RegistryConfig) -> Result<Registry> {
        if self.is_read_only(config)? {
            return self.open_read_only(config).await;
        }
        self.open_with(config, RegistryOptions::from(config)).await
    }

    /// Whether the registry that a configuration names is read-only, by the configuration itself or by its URL.
    ///
    /// # Errors
    /// `InvalidConfig` when no scheme serves the URL.
    pub fn is_read_only(&self, config: &RegistryConfig) -> Result<bool> {
        Ok(config.read_only || self.of(&config.url)?.is_read_only(&config.url))
    }

    /// Opens the registry that a configuration names, to read from it: nothing is made or changed, and writes are refused.
    ///
    /// # Errors
    /// As [`open`](Self::open); `SchemaMissing` when there is no registry.
    pub async fn open_read_only(&self, config: &RegistryConfig) -> Result<Registry> {
        self.open_with(&config.clone().for_reading(), RegistryOptions::from(config).for_reading()).await
    }

    async fn open_with(&self, config: &RegistryConfig, options: RegistryOptions) -> Result<Registry> {
        self.check(config)?;
        if self.of(&config.url)?.is_in_memory(&config.url) {
            let lasting = self.examples().find(|example| *example != MemoryScheme.example()).unwrap_or_default();
            tracing::warn!(
                "the registry is in memory: all of it is lost when this process ends; to keep it, name another, as {lasting}"
            );
        }
        let replica = replica(config).map(|config| self.backend(&config)).transpose()?;
        let opened = async { Registry::open_with_replica(self.backend(config)?, replica, options).await };
        opened.await.map_err(|error| mistaken::explain(error, &config.url))
    }

    fn backend(&self, config: &RegistryConfig) -> Result<Arc<dyn Backend>> {
        self.of(&config.url)?.open(config)
    }

    /// Whether the URLs of a configuration can be, with their options. Nothing is opened, and no server is asked.
    ///
    /// # Errors
    /// `InvalidConfig`, as from [`open`](Self::open). It names the option that is not known, or has a value that cannot be.
    pub fn check(&self, config: &RegistryConfig) -> Result<()> {
        self.of(&config.url)?.check(config)?;
        match replica(config) {
            Some(replica) => self.of(&replica.url)?.check(&replica),
            None => Ok(()),
        }
    }

    /// What [`migrate`](Self::migrate) would change, in words.
    ///
    /// # Errors
    /// As [`check`](Self::check), and when the storage cannot be read. Where there is nothing that could be old, it is not asked.
    pub async fn problems(&self, config: &RegistryConfig) -> Result<Vec<String>> {
        self.check(config)?;
        self.of(&config.url)?.problems(config).await
    }

    /// Brings old tables up to date: in MySQL and MariaDB those that an older Feast made, which keep 64 KB of an object and
    /// cannot tell names apart that differ in case or accents. Returns what was changed, in words. What is stored stays as it
    /// is, and doing it again changes nothing.
    ///
    /// # Errors
    /// As [`check`](Self::check), and when the storage cannot be changed, or what is in it does not allow it. `ReadOnly` when the
    /// configuration says that the registry is only read.
    pub async fn migrate(&self, config: &RegistryConfig) -> Result<Vec<String>> {
        self.check(config)?;
        if self.is_read_only(config)? {
            let text = format!("the registry `{}` is configured to be read only; nothing was changed", config.url);
            return Err(Error::new(ErrorKind::ReadOnly, text));
        }
        self.of(&config.url)?.migrate(config).await
    }
}

/// What a replica is opened with.
fn replica(config: &RegistryConfig) -> Option<RegistryConfig> {
    let url = config.replica()?.clone();
    let mut replica = config.clone().for_reading();
    replica.url = url;
    replica.read_url = None;
    Some(replica)
}

#[cfg(test)]
mod tests;
