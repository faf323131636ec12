//! `sqlalchemy_config_kwargs`: what Feast gives to SQLAlchemy's `create_engine`.

use std::time::Duration;

use feast_registry_core::config::PoolConfig;

use super::block::Block;
use super::read::LONGEST;
use super::yaml::Value;

/// Those that have an effect here.
const KNOWN: [&str; 8] = [
    "echo",
    "pool_size",
    "max_overflow",
    "pool_pre_ping",
    "pool_recycle",
    "pool_timeout",
    "isolation_level",
    "connect_args",
];

/// Those that SQLAlchemy 2 takes from YAML, for any database that Feast's users have, and that say nothing of what is
/// stored or where: how it logs, names, caches and groups its statements.
const WITHOUT_EFFECT: [&str; 29] = [
    "client_encoding",
    "echo_pool",
    "enable_from_linting",
    "execution_options",
    "executemany_batch_page_size",
    "executemany_mode",
    "future",
    "hide_parameters",
    "implicit_returning",
    "insertmanyvalues_page_size",
    "json_deserializer",
    "json_serializer",
    "label_length",
    "logging_name",
    "max_identifier_length",
    "native_datetime",
    "native_inet_types",
    "paramstyle",
    "plugins",
    "pool_events",
    "pool_logging_name",
    "pool_reset_on_return",
    "pool_use_lifo",
    "query_cache_size",
    "server_side_cursors",
    "skip_autocommit_rollback",
    "supports_native_boolean",
    "use_insertmanyvalues",
    "use_native_hstore",
];

/// The pool of connections.
pub(super) fn pool(block: &Block<'_>) -> PoolConfig {
    block.only(&KNOWN, &WITHOUT_EFFECT, |_| "");
    for key in WITHOUT_EFFECT {
        if key == "execution_options" && names_other_schemas(block) {
            // Passed over, it would open another registry than the one that is meant.
            block.wrong(
                key,
                "has a `schema_translate_map`, which this registry does not know; name the schema in `connect_args`, as \
                 `options: -csearch_path=team`",
            );
        } else if block.get(key).is_some() {
            block.warn(key, "is a setting of SQLAlchemy's that has no effect here; it can be left out");
        }
    }
    let mut pool = PoolConfig::default();
    let echo = block.read("echo", "`true`, `false` or `debug`", |value| match value {
        Value::Bool(echo) => Some(echo),
        // To SQLAlchemy: what statements return, too.
        Value::Str("debug") => Some(true),
        _ => None,
    });
    if let Some(echo) = echo {
        pool.echo = echo;
    }
    let most = i128::from(i32::MAX);
    if let Some(size) = block.integer("pool_size", 0..=most, " of connections (0: no limit)") {
        pool.size = size;
    }
    if let Some(overflow) = block.integer::<i32>("max_overflow", -1..=most, " of connections (-1: no limit)") {
        pool.max_overflow = u32::try_from(overflow).unwrap_or(u32::MAX);
    }
    if let Some(pre_ping) = block.boolean("pool_pre_ping") {
        pool.pre_ping = pre_ping;
    }
    if let Some(seconds) = block.integer::<i128>("pool_recycle", -1..=LONGEST, " of seconds (-1: never)") {
        pool.recycle = u64::try_from(seconds).ok().map(Duration::from_secs);
    }
    let timeout = block.read("pool_timeout", "a number of seconds, 0 or more", |value| {
        let seconds = match value {
            Value::Int(seconds @ 0..=LONGEST) => seconds as f64,
            Value::Float(seconds) if seconds <= LONGEST as f64 => seconds,
            _ => return None,
        };
        Duration::try_from_secs_f64(seconds).ok()
    });
    if let Some(timeout) = timeout {
        pool.timeout = timeout;
    }
    if let Some(level) = block.string("isolation_level") {
        // Commits are serializable whatever it is; the others have no effect.
        let levels = ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "READ UNCOMMITTED", "AUTOCOMMIT"];
        if !levels.contains(&level) {
            block.must_be("isolation_level", levels.join(", "), Value::Str(level));
        }
        pool.serializable = level == "SERIALIZABLE";
    }
    pool
}

fn names_other_schemas(block: &Block<'_>) -> bool {
    let Some(Value::Mapping(options)) = block.get("execution_options") else { return false };
    options.iter().any(|option| matches!(option.key.value(), Value::Str("schema_translate_map")))
}

/// What SQLAlchemy hands to the database's driver when it connects.
pub(super) fn connect_args(block: &Block<'_>) -> Vec<(String, String)> {
    let arguments = block.nullable_block("connect_args", "registry.sqlalchemy_config_kwargs.connect_args.");
    let mut options = Vec::new();
    for (arguments, entry) in arguments.iter().flat_map(|block| block.entries.iter().map(move |entry| (block, entry))) {
        let Value::Str(name) = entry.key.value() else {
            arguments.wrong("", "has a name that is no string");
            continue;
        };
        let value = arguments.read(name, "a string, a number, `true` or `false`", |value| match value {
            Value::Str(text) => Some(text.to_owned()),
            Value::Int(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            Value::Bool(on) => Some(on.to_string()),
            _ => None,
        });
        options.extend(value.map(|value| (name.to_owned(), value)));
    }
    options
}
