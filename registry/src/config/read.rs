//! The settings of a `feature_store.yaml` that a registry takes.

use std::path::Path;
use std::time::Duration;

use feast_registry_core::Retention;
use feast_registry_core::config::{CacheMode, History, RegistryConfig, RegistryUrl, SchemaMode};

use super::block::Block;
use super::findings::{Findings, Problem};
use super::yaml::{Node, Value};
use super::{FeatureStoreConfig, engine, place, security, unset};

const S3_OPTIONS: &str = "s3_additional_kwargs";

/// Ours, which Feast passes over.
const UNCONDITIONAL: &str = "allow_unconditional_writes";

/// Ours too: the tables, or the file, stay when the last project is deleted.
const KEEP_TABLES: &str = "keep_tables";

/// Ours too: how much of the journal is kept.
const JOURNAL_DAYS: &str = "journal_retention_days";
const JOURNAL_COMMITS: &str = "journal_max_commits";
/// And what a file's journal keeps of each change.
const HISTORY: &str = "history";

/// Settings of every registry.
const COMMON: [&str; 16] = [
    "registry_type",
    "path",
    "cache_ttl_seconds",
    "cache_mode",
    "schema_mode",
    "purge_feast_metadata",
    "registry_store_type",
    S3_OPTIONS,
    UNCONDITIONAL,
    KEEP_TABLES,
    JOURNAL_DAYS,
    JOURNAL_COMMITS,
    HISTORY,
    "enable_online_feature_view_versioning",
    "serve_features_while_materializing",
    "mcp",
];

/// Settings of `registry_type: sql` alone.
const SQL: [&str; 3] = ["read_path", "sqlalchemy_config_kwargs", "thread_pool_executor_worker_count"];

/// Settings of `registry_type: remote` (Feast: `RemoteRegistryConfig`), which templates leave in blocks of other types.
const REMOTE: [&str; 5] = ["cert", "is_tls", "client_cert", "client_key", "authority"];

/// The longest time that Python's `timedelta` holds, in seconds.
pub(super) const LONGEST: i128 = 86_399_999_999_999;

/// What the whole file says. `None` when there are errors that leave nothing to say.
pub(super) fn document(document: &Node, folder: &Path, findings: &Findings) -> Option<FeatureStoreConfig> {
    let nothing = |message: &str| {
        findings.error(Problem { line: None, message: message.to_owned() });
        None
    };
    match document.value() {
        Value::Mapping(entries) => file(&Block { prefix: "", line: None, entries, findings }, folder),
        Value::Null => nothing("the file is empty, and `registry` is missing"),
        _ => nothing("the file is not a mapping of settings to values"),
    }
}

fn file(file: &Block<'_>, folder: &Path) -> Option<FeatureStoreConfig> {
    let mut lines = unset::look_through(file, &["project", "registry", "auth", "registry_server"]);
    let project = project(file);
    let registry = match file.get("registry") {
        None => {
            file.wrong("registry", "is missing");
            None
        }
        // Feast takes a plain string for a file, and refuses the URL of a database there.
        Some(Value::Str(text)) => {
            lines.extend(lines.get("registry").map(|line| ("registry.path".to_owned(), *line)));
            let url = place::file_url(text, None, folder);
            url.map_err(|problem| file.wrong("registry", problem)).ok().map(RegistryConfig::new)
        }
        Some(Value::Mapping(entries)) => registry(&file.inner("registry", "registry.", entries), folder),
        Some(other) => {
            file.must_be("registry", "a path, a URL or a block of settings", other);
            None
        }
    };
    let (auth, server) = (security::auth(file, folder), security::server(file, folder));
    // Only told on, by a server over HTTP: what is wrong with it is for Feast's Python to say.
    let batch_engine = file.json("batch_engine").filter(|engine| !engine.is_null());
    Some(FeatureStoreConfig { project, auth, server, batch_engine, lines, ..FeatureStoreConfig::new(registry?) })
}

/// The names that Feast accepts, and those with a hyphen, which it refuses only because of its SQLite online store.
fn project(file: &Block<'_>) -> Option<String> {
    let name = file.string("project")?;
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || name.starts_with(['_', '-']) || !name.chars().all(allowed) {
        let expected = "letters, digits, `_` and `-`, with no `_` or `-` at the beginning";
        file.must_be("project", expected, Value::Str(name));
    }
    Some(name.to_owned())
}

fn registry(block: &Block<'_>, folder: &Path) -> Option<RegistryConfig> {
    // Of another type, the other settings may be anything.
    let sql = match block.get("registry_type").map(|_| block.string("registry_type")) {
        None | Some(Some("file")) => false,
        Some(Some("sql")) => true,
        Some(Some("remote")) => {
            block.wrong(
                "registry_type",
                "is `remote`, which would make this registry a client of another server; name where the registry is \
                 stored, with `sql` or `file`",
            );
            return None;
        }
        Some(Some(other)) => {
            block.must_be("registry_type", "`sql` or `file`", Value::Str(other));
            return None;
        }
        Some(None) => return None,
    };
    let known = if sql { [&COMMON[..], &SQL].concat() } else { COMMON.to_vec() };
    block.only(&known, &REMOTE, |key| if SQL.contains(&key) { ", which needs `registry_type: sql`" } else { "" });
    without_effect(block);

    let url = match block.string("path").filter(|path| !path.is_empty()) {
        Some(path) if sql => Some(place::database_url(path)),
        Some(path) => Some(place::file_url(path, place::store_type(block), folder)),
        None if matches!(block.get("path"), None | Some(Value::Str(_))) => {
            let example = if sql { "`postgresql+psycopg://user:password@host/database`" } else { "`data/registry.db`" };
            Some(Err(format!("is missing; it says where the registry is, as {example}")))
        }
        // It is no string, which has been noted.
        None => None,
    };
    let url = url.and_then(|url| url.map_err(|problem| block.wrong("path", problem)).ok());
    let mut config = url.map(RegistryConfig::new);
    // The other settings are looked at in any case, for what is wrong with them.
    let mut unused = RegistryConfig::new(RegistryUrl::from_path("registry.db"));
    settings(block, sql, config.as_mut().unwrap_or(&mut unused));
    config
}

/// Takes in all settings but where the registry is.
fn settings(block: &Block<'_>, sql: bool, config: &mut RegistryConfig) {
    // Feast gives them to every write, with encryption among them. They are for S3 alone.
    if let Some(options) = block.nullable_block(S3_OPTIONS, "registry.s3_additional_kwargs.") {
        let options = options.strings();
        if config.url.scheme() == "s3" {
            config.object_store.s3_additional_kwargs = options;
        }
    }
    if let Some(allow) = block.boolean(UNCONDITIONAL) {
        config.object_store.allow_unconditional_writes = allow;
    }
    if let Some(keep) = block.boolean(KEEP_TABLES) {
        config.keep_tables = keep;
    }
    if let Some(days) = block.integer::<u64>(JOURNAL_DAYS, 1..=36_500, " of days") {
        config.journal = Retention::new(Duration::from_secs(days * 86_400), config.journal.commits);
    }
    if let Some(commits) = block.integer::<u64>(JOURNAL_COMMITS, 1..=i64::MAX.into(), " of commits") {
        config.journal = Retention::new(config.journal.age, commits);
    }
    if let Some(history) = block.choice(HISTORY, &History::ALL) {
        if sql {
            block.warn(
                HISTORY,
                "is for registries in a file and has no effect here: a database keeps what was stored in any case",
            );
        }
        config.history = history;
    }
    if let Some(seconds) =
        block.integer("cache_ttl_seconds", 0..=LONGEST, " of seconds (0: what is cached never expires)")
    {
        config.cache.ttl = Duration::from_secs(seconds);
    }
    // Feast's operator also has `none`: in Feast, a cache that shows a process its own writes only when it is read again.
    if !matches!(block.get("cache_mode"), Some(Value::Str("none")))
        && let Some(mode) = block.choice("cache_mode", &CacheMode::ALL)
    {
        config.cache.mode = mode;
    }
    if let Some(purge) = block.boolean("purge_feast_metadata") {
        config.purge_feast_metadata = purge;
    }
    if let Some(mode) = block.choice("schema_mode", &SchemaMode::ALL) {
        config.schema_mode = mode;
    }
    if !sql {
        return;
    }
    if let Some(path) = block.nullable_string("read_path").filter(|path| !path.is_empty()) {
        let url = place::database_url(path);
        config.read_url = url.map_err(|problem| block.wrong("read_path", problem)).ok();
    }
    if let Some(block) = block.block("sqlalchemy_config_kwargs", "registry.sqlalchemy_config_kwargs.") {
        config.pool = engine::pool(&block);
        // What Feast's users give to the driver, as options of the URL.
        for (name, value) in engine::connect_args(&block) {
            config.url = config.url.clone().with_option(&name, &value);
            config.read_url = config.read_url.take().map(|url| url.with_option(&name, &value));
        }
    }
}

/// Settings that say what Feast's clients do, or how its own registry does its work.
fn without_effect(block: &Block<'_>) {
    block.boolean("enable_online_feature_view_versioning");
    block.boolean("serve_features_while_materializing");
    block.integer::<u32>("thread_pool_executor_worker_count", 0..=i32::MAX.into(), "");
    block.nullable_string("registry_store_type");
    if let Some(mcp) = block.nullable_block("mcp", "registry.mcp.") {
        mcp.only(&["enabled"], &[], |_| "");
        mcp.boolean("enabled");
    }
    for key in REMOTE {
        if !matches!(block.get(key), None | Some(Value::Null | Value::Bool(false) | Value::Str(""))) {
            block.warn(
                key,
                "is for clients of a server (`registry_type: remote`) and has no effect here: it encrypts neither the \
                 connection to a database nor what is served",
            );
        }
    }
}
