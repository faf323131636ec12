//! Reads what a registry is opened with from Feast's `feature_store.yaml`.

use std::cell::Cell;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use feast_registry_core::config::{CacheMode, PoolConfig, RegistryConfig, RegistryUrl, SchemaMode};
use feast_registry_core::{Error, Result, Retention};

mod block;
mod env;
mod yaml;

use block::Block;
use yaml::Value;

/// What a registry takes from a `feature_store.yaml`.
///
/// The file is read as Feast reads it: `$NAME` and `${NAME}` stand for environment variables anywhere in its text, and
/// the result is YAML as PyYAML understands it. Two settings of it are used:
///
/// - `project`, the name of the project;
/// - `registry`, which is the path or the URL of a file, or a block with `registry_type: sql` or `registry_type: file`
///   and the settings of such a registry.
///
/// All else configures other parts of Feast and is not looked at. In the block, nothing is passed over: an unknown
/// setting or a value that cannot be is an error, where Feast is often silent. Settings that concern Feast's clients
/// alone are checked and have no effect. A key must not be there twice anywhere in the file.
///
/// The path of a file is relative to the folder of the `feature_store.yaml`, as a rule of Feast's. A path in a
/// `sqlite:///` URL is relative to the folder that the process works in, as a rule of SQLAlchemy's.
///
/// ```
/// use feast_registry::config::FeatureStoreConfig;
///
/// let text = "
/// project: driver_ranking
/// registry:
///   registry_type: sql
///   path: postgresql+psycopg://feast:${DB_PASSWORD}@db/feast
///   cache_ttl_seconds: 60
/// ";
/// let env = |name: &str| (name == "DB_PASSWORD").then(|| "secret".to_owned());
/// let config = FeatureStoreConfig::parse(text, "feature_store.yaml", env)?;
/// assert_eq!(config.project.as_deref(), Some("driver_ranking"));
/// assert_eq!(config.registry.url.password(), Some("secret"));
/// assert_eq!(config.registry.cache.ttl.as_secs(), 60);
/// # Ok::<(), feast_registry_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureStoreConfig {
    /// The project that the file is for, if it names one.
    pub project: Option<String>,
    /// What the registry is opened with.
    pub registry: RegistryConfig,
}

impl FeatureStoreConfig {
    /// Reads the file at `path`, with the environment variables of this process.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](feast_registry_core::ErrorKind::InvalidConfig): the file cannot be read or not be understood. The
    /// error names the file, the line and the setting, and what is accepted there. It never repeats a URL.
    pub fn load(path: &Path) -> Result<Self> {
        let unreadable = |why: &dyn Display| format!("{} cannot be read: {why}", path.display());
        let Some(origin) = path.to_str() else {
            return Err(Error::config(unreadable(&"its path is not UTF-8 text")));
        };
        let bytes = std::fs::read(path).map_err(|error| Error::config(unreadable(&error)).with_source(error))?;
        let text = String::from_utf8(bytes).map_err(|_| Error::config(unreadable(&"it is not UTF-8 text")))?;

        // To `parse`, a variable whose value is not text does not exist, and its name stays where the value should be.
        let not_text = Cell::new(None);
        let config = Self::parse(&text, origin, |name| match std::env::var(name) {
            Ok(value) => Some(value),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => {
                not_text.set(Some(name.to_owned()));
                None
            }
        });
        match not_text.into_inner() {
            Some(name) => {
                Err(Error::config(unreadable(&format_args!("the environment variable `{name}` is not UTF-8 text"))))
            }
            None => config,
        }
    }

    /// Reads the text of a file. `origin` is the path of the file: what is relative in the text is so to its folder,
    /// and errors begin with it. `env` gives the value of an environment variable.
    ///
    /// # Errors
    ///
    /// As those of [`load`](Self::load).
    pub fn parse(text: &str, origin: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let expanded = env::expand(text, env);
        let config = yaml::load(&expanded.text).and_then(|document| match document.value() {
            Value::Mapping(entries) => file(&Block { prefix: "", line: None, entries }, origin),
            Value::Null => {
                Err(Problem { line: None, message: "the file is empty, and `registry` is missing".to_owned() })
            }
            _ => Err(Problem { line: None, message: "the file is not a mapping of settings to values".to_owned() }),
        });
        config.map_err(|Problem { line, message }| match line {
            Some(line) => Error::config(format!("{origin}, line {}: {message}", expanded.line_in_file(line))),
            None => Error::config(format!("{origin}: {message}")),
        })
    }
}

/// What is wrong, and in which line of the expanded text if it is in one.
#[derive(Debug)]
struct Problem {
    line: Option<usize>,
    message: String,
}

const S3_OPTIONS: &str = "s3_additional_kwargs";

/// Ours, which Feast passes over.
const UNCONDITIONAL: &str = "allow_unconditional_writes";

/// Ours too: the tables, or the file, stay when the last project is deleted.
const KEEP_TABLES: &str = "keep_tables";

/// Ours too: how much of the journal is kept.
const JOURNAL_DAYS: &str = "journal_retention_days";
const JOURNAL_COMMITS: &str = "journal_max_commits";

/// Settings of every registry.
const COMMON: [&str; 14] = [
    "registry_type",
    "path",
    "cache_ttl_seconds",
    "cache_mode",
    "purge_feast_metadata",
    "registry_store_type",
    S3_OPTIONS,
    UNCONDITIONAL,
    KEEP_TABLES,
    JOURNAL_DAYS,
    JOURNAL_COMMITS,
    "enable_online_feature_view_versioning",
    "serve_features_while_materializing",
    "mcp",
];

/// Settings of `registry_type: sql` alone.
const SQL: [&str; 4] = ["read_path", "schema_mode", "sqlalchemy_config_kwargs", "thread_pool_executor_worker_count"];

/// Schemes of `registry_type: file`. Feast has no `az`, `abfss` and `memory`.
const FILES: [&str; 6] = ["file", "s3", "gs", "az", "abfss", "memory"];

/// Feast's classes for the schemes. It reaches Azure by `https`, which needs the class to be named.
const STORES: [(&str, &str); 6] = [
    ("FileRegistryStore", "file"),
    ("S3RegistryStore", "s3"),
    ("GCSRegistryStore", "gs"),
    ("AzureRegistryStore", "https"),
    ("AzureRegistryStore", "az"),
    ("AzureRegistryStore", "abfss"),
];

/// The longest time that Python's `timedelta` holds, in seconds.
const LONGEST: i128 = 86_399_999_999_999;

fn file(file: &Block<'_>, origin: &str) -> Result<FeatureStoreConfig, Problem> {
    let registry = match file.get("registry") {
        None => return Err(file.wrong("registry", "is missing")),
        // Feast takes a plain string for a file, and refuses the URL of a database there.
        Some(Value::Str(text)) => {
            RegistryConfig::new(file_url(text, None, origin).map_err(|problem| file.wrong("registry", problem))?)
        }
        Some(Value::Mapping(entries)) => registry(&file.inner("registry", "registry.", entries), origin)?,
        Some(other) => return Err(file.must_be("registry", "a path, a URL or a block of settings", other)),
    };
    Ok(FeatureStoreConfig { project: project(file)?, registry })
}

/// The names that Feast accepts, and those with a hyphen, which it refuses only because of its SQLite online store.
fn project(file: &Block<'_>) -> Result<Option<String>, Problem> {
    let Some(name) = file.string("project")? else { return Ok(None) };
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || name.starts_with(['_', '-']) || !name.chars().all(allowed) {
        let expected = "letters, digits, `_` and `-`, with no `_` or `-` at the beginning";
        return Err(file.must_be("project", expected, Value::Str(name)));
    }
    Ok(Some(name.to_owned()))
}

fn registry(block: &Block<'_>, origin: &str) -> Result<RegistryConfig, Problem> {
    let sql = match block.string("registry_type")? {
        None | Some("file") => false,
        Some("sql") => true,
        Some("remote") => {
            return Err(block.wrong(
                "registry_type",
                "is `remote`, which would make this registry a client of another server; name where the registry is \
                 stored, with `sql` or `file`",
            ));
        }
        Some(other) => return Err(block.must_be("registry_type", "`sql` or `file`", Value::Str(other))),
    };
    let known = if sql { [&COMMON[..], &SQL].concat() } else { COMMON.to_vec() };
    block.only(&known, |key| if SQL.contains(&key) { ", which needs `registry_type: sql`" } else { "" })?;
    without_effect(block)?;

    let path = block.string("path")?.filter(|path| !path.is_empty());
    let Some(path) = path else {
        let example = if sql { "`postgresql+psycopg://user:password@host/database`" } else { "`data/registry.db`" };
        return Err(block.wrong("path", format_args!("is missing; it says where the registry is, as {example}")));
    };
    let mut config = RegistryConfig::new(if sql {
        database_url(path).map_err(|problem| block.wrong("path", problem))?
    } else {
        let store = store_type(block)?;
        file_url(path, store, origin).map_err(|problem| block.wrong("path", problem))?
    });

    // Feast gives them to every write, with encryption among them. They are for S3 alone.
    if config.url.scheme() == "s3"
        && let Some(options) = block.nullable_block(S3_OPTIONS, "registry.s3_additional_kwargs.")?
    {
        config.object_store.s3_additional_kwargs = options.strings()?;
    }
    if let Some(allow) = block.boolean(UNCONDITIONAL)? {
        config.object_store.allow_unconditional_writes = allow;
    }
    if let Some(keep) = block.boolean(KEEP_TABLES)? {
        config.keep_tables = keep;
    }
    if let Some(days) = block.integer::<u64>(JOURNAL_DAYS, 1..=36_500, " of days")? {
        config.journal = Retention::new(Duration::from_secs(days * 86_400), config.journal.commits);
    }
    if let Some(commits) = block.integer::<u64>(JOURNAL_COMMITS, 1..=i64::MAX.into(), " of commits")? {
        config.journal = Retention::new(config.journal.age, commits);
    }
    if let Some(seconds) =
        block.integer("cache_ttl_seconds", 0..=LONGEST, " of seconds (0: what is cached never expires)")?
    {
        config.cache.ttl = Duration::from_secs(seconds);
    }
    if let Some(mode) = block.choice("cache_mode", &CacheMode::ALL)? {
        config.cache.mode = mode;
    }
    if let Some(purge) = block.boolean("purge_feast_metadata")? {
        config.purge_feast_metadata = purge;
    }
    if let Some(mode) = block.choice("schema_mode", &SchemaMode::ALL)? {
        config.schema_mode = mode;
    }
    if let Some(path) = block.nullable_string("read_path")?.filter(|path| !path.is_empty()) {
        config.read_url = Some(database_url(path).map_err(|problem| block.wrong("read_path", problem))?);
    }
    if let Some(block) = block.block("sqlalchemy_config_kwargs", "registry.sqlalchemy_config_kwargs.")? {
        config.pool = pool(&block)?;
        // What Feast's users give to the driver, as options of the URL.
        for (name, value) in connect_args(&block)? {
            config.url = config.url.with_option(&name, &value);
            config.read_url = config.read_url.map(|url| url.with_option(&name, &value));
        }
    }
    Ok(config)
}

/// Settings that say what Feast's clients do, or how its own registry does its work.
fn without_effect(block: &Block<'_>) -> Result<(), Problem> {
    block.boolean("enable_online_feature_view_versioning")?;
    block.boolean("serve_features_while_materializing")?;
    block.integer::<u32>("thread_pool_executor_worker_count", 0..=i32::MAX.into(), "")?;
    block.nullable_string("registry_store_type")?;
    if let Some(options) = block.nullable_block(S3_OPTIONS, "registry.s3_additional_kwargs.")? {
        options.strings()?;
    }
    if let Some(mcp) = block.nullable_block("mcp", "registry.mcp.")? {
        mcp.only(&["enabled"], |_| "")?;
        mcp.boolean("enabled")?;
    }
    Ok(())
}

/// The class that a block names for a file.
fn store_type<'a>(block: &Block<'a>) -> Result<Option<&'a str>, Problem> {
    match block.nullable_string("registry_store_type")? {
        Some(store) if !STORES.iter().any(|&(name, _)| name == store) => Err(block.must_be(
            "registry_store_type",
            "`FileRegistryStore`, `S3RegistryStore`, `GCSRegistryStore` or `AzureRegistryStore`",
            Value::Str(store),
        )),
        store => Ok(store),
    }
}

fn pool(block: &Block<'_>) -> Result<PoolConfig, Problem> {
    let accepted = [
        "echo",
        "pool_size",
        "max_overflow",
        "pool_pre_ping",
        "pool_recycle",
        "pool_timeout",
        "isolation_level",
        "connect_args",
    ];
    block.only(&accepted, |_| "")?;
    let mut pool = PoolConfig::default();
    match block.get("echo") {
        None => {}
        Some(Value::Bool(echo)) => pool.echo = echo,
        // To SQLAlchemy: what statements return, too.
        Some(Value::Str("debug")) => pool.echo = true,
        Some(other) => return Err(block.must_be("echo", "`true`, `false` or `debug`", other)),
    }
    let most = i128::from(i32::MAX);
    if let Some(size) = block.integer("pool_size", 0..=most, " of connections (0: no limit)")? {
        pool.size = size;
    }
    if let Some(overflow) = block.integer::<i32>("max_overflow", -1..=most, " of connections (-1: no limit)")? {
        pool.max_overflow = u32::try_from(overflow).unwrap_or(u32::MAX);
    }
    if let Some(pre_ping) = block.boolean("pool_pre_ping")? {
        pool.pre_ping = pre_ping;
    }
    if let Some(seconds) = block.integer::<i128>("pool_recycle", -1..=LONGEST, " of seconds (-1: never)")? {
        pool.recycle = u64::try_from(seconds).ok().map(Duration::from_secs);
    }
    if let Some(value) = block.get("pool_timeout") {
        let seconds = match value {
            Value::Int(seconds @ 0..=LONGEST) => Some(seconds as f64),
            Value::Float(seconds) if seconds <= LONGEST as f64 => Some(seconds),
            _ => None,
        };
        pool.timeout = seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| block.must_be("pool_timeout", "a number of seconds, 0 or more", value))?;
    }
    if let Some(level) = block.string("isolation_level")? {
        // Commits are serializable whatever it is; the others have no effect.
        let levels = ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "READ UNCOMMITTED", "AUTOCOMMIT"];
        if !levels.contains(&level) {
            return Err(block.must_be("isolation_level", levels.join(", "), Value::Str(level)));
        }
        pool.serializable = level == "SERIALIZABLE";
    }
    Ok(pool)
}

/// What SQLAlchemy hands to the database's driver when it connects.
fn connect_args(block: &Block<'_>) -> Result<Vec<(String, String)>, Problem> {
    let Some(arguments) = block.nullable_block("connect_args", "registry.sqlalchemy_config_kwargs.connect_args.")?
    else {
        return Ok(Vec::new());
    };
    let mut options = Vec::new();
    for entry in arguments.entries {
        let Value::Str(name) = entry.key.value() else {
            return Err(arguments.wrong("", "has a name that is no string"));
        };
        options.push((
            name.to_owned(),
            match entry.value.value() {
                Value::Str(text) => text.to_owned(),
                Value::Int(number) => number.to_string(),
                Value::Bool(on) => on.to_string(),
                other => return Err(arguments.must_be(name, "a string, a number, `true` or `false`", other)),
            },
        ));
    }
    Ok(options)
}

/// What the path of a registry is, without showing it.
fn kind(text: &str, url: &RegistryUrl) -> String {
    if text.contains("://") { format!("a URL with `{}://`", url.scheme()) } else { "a path".to_owned() }
}

fn database_url(text: &str) -> Result<RegistryUrl, String> {
    let url: RegistryUrl = text.parse().map_err(|error| format!("is wrong: {error}"))?;
    if FILES.contains(&url.scheme()) {
        return Err(format!(
            "must be the URL of a database with `registry_type: sql`, as `sqlite:///registry.db` or \
             `postgresql+psycopg://user:password@host/database`; it is {}",
            kind(text, &url)
        ));
    }
    Ok(url)
}

fn file_url(text: &str, store: Option<&str>, origin: &str) -> Result<RegistryUrl, String> {
    let url: RegistryUrl = text.parse().map_err(|error| format!("is wrong: {error}"))?;
    match store {
        Some(store) if !STORES.contains(&(store, url.scheme())) => {
            return Err(format!(
                "is {}, which is not for `registry_store_type: {store}`; leave `registry_store_type` out, or change \
                 one of the two",
                kind(text, &url)
            ));
        }
        Some(_) => {}
        None if FILES.contains(&url.scheme()) => {}
        None => {
            return Err(format!(
                "is {}; a registry in a file is a path or a URL with `{}://`, and one in a database needs \
                 a block with `registry_type: sql` and the URL as its `path`",
                kind(text, &url),
                FILES.join("://`, `")
            ));
        }
    }
    // Feast's rule: the folder of the repository, where the file is that is read here.
    match url.database() {
        Some(path) if url.scheme() == "file" => {
            let folder = Path::new(origin).parent().unwrap_or(Path::new(""));
            Ok(RegistryUrl::from_path(folder.join(path).to_string_lossy()))
        }
        _ => Ok(url),
    }
}

#[cfg(test)]
mod tests;
