use std::time::Duration;

use feast_registry_core::ErrorKind;
use feast_registry_core::config::{CacheConfig, CacheMode, History, ObjectStoreConfig, PoolConfig, SchemaMode};
use proptest::prelude::*;

use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

fn parse(text: &str) -> FeatureStoreConfig {
    FeatureStoreConfig::parse(text, "repo/feature_store.yaml", no_env).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A registry of type `sql` with more settings.
fn sql(settings: &str) -> String {
    format!("registry:\n  registry_type: sql\n  path: sqlite:///r.db\n{settings}")
}

/// A registry of type `file` with more settings.
fn file(settings: &str) -> String {
    format!("registry:\n  registry_type: file\n  path: r.db\n{settings}")
}

/// Without the name of the file.
fn error(text: &str) -> String {
    let error = FeatureStoreConfig::parse(text, "repo/feature_store.yaml", no_env).expect_err(text);
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let error = error.to_string();
    error.strip_prefix("repo/feature_store.yaml").unwrap_or_else(|| panic!("{error}")).to_owned()
}

#[test]
fn a_full_block_is_read() {
    let config = parse(
        "
project: my-project_1
provider: local
registry:
    registry_type: sql
    path: postgresql://feast:pass@db:5432/feast
    read_path: postgresql+psycopg://feast:pass@replica:5432/feast
    cache_ttl_seconds: 60
    cache_mode: thread
    schema_mode: verify
    purge_feast_metadata: true
    thread_pool_executor_worker_count: 4
    enable_online_feature_view_versioning: true
    serve_features_while_materializing: true
    registry_store_type: null
    s3_additional_kwargs: {ServerSideEncryption: AES256}
    mcp: {enabled: true}
    sqlalchemy_config_kwargs:
        echo: true
        pool_size: 7
        max_overflow: 3
        pool_pre_ping: true
        pool_recycle: 3600
        pool_timeout: 2.5
        isolation_level: SERIALIZABLE
        connect_args: {sslmode: require, connect_timeout: 3}
online_store: {type: redis, connection_string: 'localhost:6379'}
entity_key_serialization_version: 3
",
    );
    assert_eq!(config.project.as_deref(), Some("my-project_1"));
    let mut expected =
        RegistryConfig::new("postgresql://feast:pass@db:5432/feast?sslmode=require&connect_timeout=3".parse().unwrap());
    let replica = "postgresql+psycopg://feast:pass@replica:5432/feast?sslmode=require&connect_timeout=3";
    expected.read_url = Some(replica.parse().unwrap());
    expected.cache = CacheConfig::new(CacheMode::Thread, Duration::from_secs(60));
    expected.schema_mode = SchemaMode::Verify;
    expected.purge_feast_metadata = true;
    expected.pool = PoolConfig::new(7, 3);
    expected.pool.pre_ping = true;
    expected.pool.recycle = Some(Duration::from_secs(3600));
    expected.pool.echo = true;
    expected.pool.timeout = Duration::from_millis(2500);
    expected.pool.serializable = true;
    assert_eq!(config.registry, expected);
}

#[test]
fn what_is_not_said_is_at_its_default() {
    let config = parse(&sql("  read_path: ''\n  sqlalchemy_config_kwargs: {}\n  mcp:\n  s3_additional_kwargs: {}"));
    assert_eq!(config.project, None);
    assert_eq!(config.registry, RegistryConfig::new("sqlite:///r.db".parse().unwrap()));
    let config = parse(&sql("  read_path: ~\n  cache_ttl_seconds: 0"));
    assert_eq!((config.registry.read_url, config.registry.cache.ttl), (None, Duration::ZERO));
}

#[test]
fn tables_may_be_kept_and_the_journal_bounded() {
    let day = Duration::from_secs(86_400);
    for text in [&sql(""), "registry:\n  path: data/registry.db"] {
        let text = format!("{text}\n  keep_tables: true\n  journal_retention_days: 7\n  journal_max_commits: 500");
        let registry = parse(&text).registry;
        assert!(registry.keep_tables);
        assert_eq!((registry.journal.age, registry.journal.commits), (7 * day, 500));
    }
    let usual = parse(&sql("")).registry;
    assert!(!usual.keep_tables);
    assert_eq!((usual.journal.age, usual.journal.commits), (30 * day, 100_000));
}

#[test]
fn a_file_may_keep_its_whole_history() {
    let file = "registry:\n  path: data/registry.db";
    assert_eq!(parse(file).registry.history, History::Keys);
    for (word, history) in [("full", History::Full), ("keys", History::Keys)] {
        let config = parse(&format!("{file}\n  history: {word}"));
        assert_eq!((config.registry.history, config.warnings), (history, Vec::new()));
    }
    let warnings = parse(&sql("  history: full")).warnings;
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.to_string().contains("`registry.history` is for registries in a file"), "{warning}");
}

#[test]
fn what_every_write_to_s3_says_is_passed_on() {
    let text = "registry:\n  path: s3://b/k\n  s3_additional_kwargs: {ServerSideEncryption: 'aws:kms', SSEKMSKeyId: a}\n  \
                allow_unconditional_writes: true";
    let config = parse(text).registry.object_store;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(config.s3_additional_kwargs, [pair("ServerSideEncryption", "aws:kms"), pair("SSEKMSKeyId", "a")]);
    assert!(config.allow_unconditional_writes);
    assert!(!format!("{config:?}").contains("aws:kms"), "values may be secret: {config:?}");
    let local = parse("registry:\n  path: data/registry.db\n  s3_additional_kwargs: {ServerSideEncryption: AES256}");
    assert_eq!(local.registry.object_store, ObjectStoreConfig::default());
}

#[test]
fn a_plain_string_is_a_file() {
    for (text, scheme, path) in [
        ("data/registry.db", "file", "repo/data/registry.db"),
        ("/var/registry.db", "file", "/var/registry.db"),
        ("file:///var/registry.db", "file", "/var/registry.db"),
        ("'../a: b'", "file", "repo/../a: b"),
        ("s3://bucket/registry.db", "s3", "registry.db"),
        ("gs://bucket/registry.db", "gs", "registry.db"),
        ("abfss://container@account.dfs.core.windows.net/registry.db", "abfss", "registry.db"),
    ] {
        for config in [format!("registry: {text}"), format!("registry:\n  path: {text}")] {
            let url = parse(&config).registry.url;
            assert_eq!((url.scheme(), url.database()), (scheme, Some(path)), "{config}");
        }
    }
    for text in ["sqlite:///r.db", "postgresql://u:hunter2@h/d", "mysql+pymysql://u:hunter2@h/d", "hdfs://h/d"] {
        let plain = error(&format!("registry: {text}"));
        assert!(plain.starts_with(", line 1: `registry` is a URL with `"), "{plain}");
        assert!(plain.contains("`registry_type: sql`") && !plain.contains("hunter2"), "{plain}");
        let block = error(&format!("registry:\n  path: {text}"));
        assert!(block.starts_with(", line 2: `registry.path` is a URL with `"), "{block}");
    }
}

#[test]
fn paths_are_relative_to_the_folder_of_the_file() {
    for (origin, expected) in [
        ("feature_store.yaml", "data/registry.db"),
        ("./feature_store.yaml", "./data/registry.db"),
        ("/repo/feature_store.yaml", "/repo/data/registry.db"),
    ] {
        let config = FeatureStoreConfig::parse("registry: data/registry.db", origin, no_env).unwrap();
        assert_eq!(config.registry.url.database(), Some(expected));
    }
    // SQLAlchemy's rule, not Feast's.
    assert_eq!(parse(&sql("")).registry.url.database(), Some("r.db"));
}

#[test]
fn variables_are_replaced_before_the_yaml_is_read() {
    let env = |name: &str| match name {
        "PASSWORD" => Some("p%40ss".to_owned()),
        "TTL" => Some("60".to_owned()),
        "BLOCK" => Some("cache_mode: sync\n  schema_mode: skip".to_owned()),
        _ => None,
    };
    let text = "
registry:
  registry_type: sql
  path: postgresql://u:${PASSWORD}@$HOST/d # $COMMENT
  cache_ttl_seconds: $TTL
  $BLOCK
";
    let config = FeatureStoreConfig::parse(text, "f", env).unwrap().registry;
    assert_eq!((config.url.password(), config.url.host()), (Some("p@ss"), Some("$HOST")));
    assert_eq!((config.cache.ttl, config.schema_mode), (Duration::from_secs(60), SchemaMode::Skip));

    // The line is that of the file, in spite of the line break in the value.
    let error = FeatureStoreConfig::parse(&format!("{text}  cache_modes: sync\n"), "f", env).unwrap_err().to_string();
    assert!(error.starts_with("f, line 7: `registry` has no setting `cache_modes`"), "{error}");
    let error = FeatureStoreConfig::parse(&sql("  cache_ttl_seconds: $MISSING"), "f", env).unwrap_err().to_string();
    assert!(error.starts_with("f, line 4: `registry.cache_ttl_seconds` needs the environment variable"), "{error}");
}

#[test]
fn errors_name_line_setting_and_what_is_accepted() {
    for (text, expected) in [
        // The file.
        ("", ": the file is empty, and `registry` is missing"),
        ("- a", ": the file is not a mapping of settings to values"),
        ("project: a", ": `registry` is missing"),
        ("registry: a\nproject: a\nproject: b", ", line 3: the key `project` is there for the second time"),
        ("registry: [a]", ", line 1: `registry` must be a path, a URL or a block of settings; it is a list"),
        ("\nregistry:", ", line 2: `registry` must be a path, a URL or a block of settings; it is empty"),
        ("registry: 5", ", line 1: `registry` must be a path, a URL or a block of settings; it is the number `5`"),
        ("registry: ''", ", line 1: `registry` is wrong: the path or URL of the registry is empty"),
        ("registry: a\nproject: 5", ", line 2: `project` must be a string; it is the number `5`"),
        ("registry: a\nproject: _a", ", line 2: `project` must be letters, digits, `_` and `-`, with no"),
        ("registry: a\nproject: a.b", ", line 2: `project` must be letters"),
        ("registry: a\nproject: ''", ", line 2: `project` must be letters"),
        // Where the registry is.
        (
            "registry:\n  registry_type: sql",
            ", line 1: `registry.path` is missing; it says where the registry is, as `po",
        ),
        ("registry: {}", ", line 1: `registry.path` is missing; it says where the registry is, as `data/registry.db`"),
        ("registry:\n  path:", ", line 2: `registry.path` must be a string; it is empty"),
        (
            "registry:\n  registry_type: sql\n  path: data/r.db",
            ", line 3: `registry.path` must be the URL of a database with `registry_type: sql`, as \
             `sqlite:///registry.db` or `postgresql+psycopg://user:password@host/database`; it is a path",
        ),
        (
            "registry:\n  registry_type: sql\n  path: s3://b/k",
            ", line 3: `registry.path` must be the URL of a database with `registry_type: sql`, as \
             `sqlite:///registry.db` or `postgresql+psycopg://user:password@host/database`; it is a URL with `s3://`",
        ),
        (
            "registry:\n  registry_type: sql\n  path: postgresql://u:p@h:x/d",
            ", line 3: `registry.path` is wrong: the registry's URL `postgresql://…` has a port that is no number",
        ),
        (&sql("  read_path: r.db"), ", line 4: `registry.read_path` must be the URL of a database"),
        // The type.
        (
            "registry:\n  path: a\n  registry_type: remote",
            ", line 3: `registry.registry_type` is `remote`, which would make this registry a client of another server",
        ),
        (
            "registry:\n  registry_type: snowflake.registry",
            ", line 2: `registry.registry_type` must be `sql` or `file`; it is the string `snowflake.registry`",
        ),
        ("registry:\n  registry_type:", ", line 2: `registry.registry_type` must be a string; it is empty"),
        // Settings.
        (
            &sql("  cache_ttl: 5"),
            ", line 4: `registry` has no setting `cache_ttl`; its settings are `registry_type`, `path`, `cache_",
        ),
        (
            &file("  read_path: sqlite:///r.db"),
            ", line 4: `registry` has no setting `read_path`, which needs `registry_type: sql`; its settings are ",
        ),
        (&sql("  5: 5"), ", line 4: `registry` has no setting that is the number `5`; its settings are"),
        (
            &sql("  cache_ttl_seconds: '600'"),
            ", line 4: `registry.cache_ttl_seconds` must be a whole number of seconds (0: what is cached never \
             expires), from 0 to 86399999999999; it is the string `600`",
        ),
        (&sql("  cache_ttl_seconds: true"), ", line 4: `registry.cache_ttl_seconds` must be a whole number"),
        (&sql("  cache_ttl_seconds: 1.0"), ", line 4: `registry.cache_ttl_seconds` must be a whole number"),
        (&sql("  cache_ttl_seconds: -1"), ", line 4: `registry.cache_ttl_seconds` must be a whole number"),
        (&sql("  cache_ttl_seconds:"), ", line 4: `registry.cache_ttl_seconds` must be a whole number"),
        (&sql("  cache_ttl_seconds: 86400000000000"), ", line 4: `registry.cache_ttl_seconds` must be a whole number"),
        (
            &sql("  cache_mode: async"),
            ", line 4: `registry.cache_mode` must be `sync` or `thread`; it is the string `async`",
        ),
        (
            &sql("  schema_mode: off"),
            ", line 4: `registry.schema_mode` must be `auto` or `verify` or `skip`; it is the boolean `false`",
        ),
        (
            &sql("  purge_feast_metadata: 'true'"),
            ", line 4: `registry.purge_feast_metadata` must be `true` or `false`; it is the string `true`",
        ),
        (
            &sql("  serve_features_while_materializing: 1"),
            ", line 4: `registry.serve_features_while_materializing` must",
        ),
        (
            &sql("  enable_online_feature_view_versioning: a"),
            ", line 4: `registry.enable_online_feature_view_versioning`",
        ),
        (
            &sql("  thread_pool_executor_worker_count: -1"),
            ", line 4: `registry.thread_pool_executor_worker_count` must be",
        ),
        (&sql("  mcp: true"), ", line 4: `registry.mcp` must be a block of settings; it is the boolean `true`"),
        (&sql("  mcp:\n    enable: a"), ", line 5: `registry.mcp` has no setting `enable`; its settings are `enabled`"),
        (
            &sql("  mcp:\n    enabled: a"),
            ", line 5: `registry.mcp.enabled` must be `true` or `false`; it is the string `a`",
        ),
        (
            &sql("  s3_additional_kwargs:\n    a: 1"),
            ", line 5: `registry.s3_additional_kwargs` holds strings; this is the",
        ),
        (&sql("  keep_tables: 1"), ", line 4: `registry.keep_tables` must be `true` or `false`"),
        (&sql("  journal_retention_days: 0"), ", line 4: `registry.journal_retention_days` must be"),
        (&sql("  history: all"), ", line 4: `registry.history` must be `keys` or `full`; it is the string `all`"),
        (&sql("  history: true"), ", line 4: `registry.history` must be `keys` or `full`; it is the boolean `true`"),
        (&sql("  journal_max_commits: -1"), ", line 4: `registry.journal_max_commits` must be"),
        (
            "registry:\n  path: s3://b/k\n  allow_unconditional_writes: 1",
            ", line 3: `registry.allow_unconditional_writes` must be `true` or `false`",
        ),
        (
            &file("  registry_store_type: my.RegistryStore"),
            ", line 4: `registry.registry_store_type` must be `FileRegistryStore`, `S3RegistryStore`, \
             `GCSRegistryStore` or `AzureRegistryStore`; it is the string `my.RegistryStore`",
        ),
        (
            &file("  registry_store_type: S3RegistryStore"),
            ", line 3: `registry.path` is a path, which is not for `registry_store_type: S3RegistryStore`; leave",
        ),
        // The pool.
        (
            &sql("  sqlalchemy_config_kwargs:\n    pool_size: 5\n    poolclass: SERIALIZABLE"),
            ", line 6: `registry.sqlalchemy_config_kwargs` has no setting `poolclass`; its settings are `echo`, \
             `pool_size`, `max_overflow`, `pool_pre_ping`, `pool_recycle`, `pool_timeout`, \
             `isolation_level`, `connect_args`",
        ),
        (
            &sql("  sqlalchemy_config_kwargs: {isolation_level: SNAPSHOT}"),
            ", line 4: `registry.sqlalchemy_config_kwargs.isolation_level` must be SERIALIZABLE, REPEATABLE READ, READ",
        ),
        (
            &sql("  sqlalchemy_config_kwargs: {connect_args: {ssl: {ca: a}}}"),
            ", line 4: `registry.sqlalchemy_config_kwargs.connect_args.ssl` must be a string, a number",
        ),
        (
            &sql("  sqlalchemy_config_kwargs:"),
            ", line 4: `registry.sqlalchemy_config_kwargs` must be a block of settings",
        ),
        (
            &sql("  sqlalchemy_config_kwargs:\n    pool_size: -1"),
            ", line 5: `registry.sqlalchemy_config_kwargs.pool_size` must be a whole number of connections (0: no \
             limit), from 0 to 2147483647; it is the number `-1`",
        ),
        (
            &sql("  sqlalchemy_config_kwargs: {max_overflow: -2}"),
            ", line 4: `registry.sqlalchemy_config_kwargs.max_overfl",
        ),
        (
            &sql("  sqlalchemy_config_kwargs: {pool_recycle: 1.5}"),
            ", line 4: `registry.sqlalchemy_config_kwargs.pool_recyc",
        ),
        (
            &sql("  sqlalchemy_config_kwargs: {pool_timeout: -1}"),
            ", line 4: `registry.sqlalchemy_config_kwargs.pool_timeo",
        ),
        (
            &sql("  sqlalchemy_config_kwargs: {pool_timeout: .nan}"),
            ", line 4: `registry.sqlalchemy_config_kwargs.pool_tim",
        ),
        (
            &sql("  sqlalchemy_config_kwargs: {pool_timeout: -.1}"),
            ", line 4: `registry.sqlalchemy_config_kwargs.pool_time",
        ),
        (
            &sql("  sqlalchemy_config_kwargs: {pool_pre_ping: 1}"),
            ", line 4: `registry.sqlalchemy_config_kwargs.pool_pre_p",
        ),
        (
            &sql("  sqlalchemy_config_kwargs: {echo: all}"),
            ", line 4: `registry.sqlalchemy_config_kwargs.echo` must be `tr",
        ),
    ] {
        let error = error(text);
        assert!(error.starts_with(expected), "{text}\n{error}");
    }
}

#[test]
fn errors_repeat_no_url() {
    for text in [
        "registry: postgresql://u:hunter2@h/d",
        "registry: postgresql://u:hunter2",
        "registry:\n  registry_type: postgresql://u:hunter2@h/d",
        "registry:\n  cache_mode: postgresql://u:hunter2@h/d\n  path: a",
        "registry:\n  postgresql://u:hunter2@h/d: a\n",
        "registry: a\npostgresql://u:hunter2@h/d: a\npostgresql://u:hunter2@h/d: b",
        "registry: a\nproject: postgresql://u:hunter2@h/d",
        "registry:\n  registry_type: sql\n  path: 'postgresql:u:hunter2@h/d'",
        "registry:\n  registry_type: sql\n  path: s3://u:hunter2@h/d",
        "registry:\n  registry_type: sql\n  path: a/u:hunter2@h/d",
        "registry:\n  path: a\n  registry_store_type: postgresql://u:hunter2@h/d",
        "registry:\n  path: https://u:hunter2@h/d\n  registry_store_type: S3RegistryStore",
    ] {
        let error = error(text);
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn no_limits_are_as_in_sqlalchemy() {
    let pool = parse(&sql(
        "  sqlalchemy_config_kwargs: {pool_size: 0, max_overflow: -1, pool_recycle: -1, pool_timeout: 0, echo: debug}",
    ))
    .registry
    .pool;
    assert_eq!((pool.size, pool.max_overflow, pool.recycle), (0, u32::MAX, None));
    assert_eq!((pool.timeout, pool.echo), (Duration::ZERO, true));
    let pool = parse(&sql("  sqlalchemy_config_kwargs: {pool_recycle: 0}")).registry.pool;
    assert_eq!(pool.recycle, Some(Duration::ZERO));
}

#[test]
fn azure_is_reached_by_https_where_its_class_is_named() {
    let text = "registry:\n  path: https://account.blob.core.windows.net/container/registry.db\n";
    let config = parse(&format!("{text}  registry_store_type: AzureRegistryStore"));
    assert_eq!(config.registry.url.scheme(), "https");
    assert!(error(text).starts_with(", line 2: `registry.path` is a URL with `https://`"));
}

#[test]
fn a_file_is_loaded_from_its_place() {
    let folder = std::env::temp_dir().join(format!("registry-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("feature_store.yaml");

    let missing = FeatureStoreConfig::load(&path).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::InvalidConfig);
    assert!(missing.to_string().starts_with(&format!("{}: the file cannot be read: ", path.display())), "{missing}");

    std::fs::write(&path, "project: $CARGO_PKG_NAME\nregistry: data/registry.db\n").unwrap();
    let loaded = FeatureStoreConfig::load(&path).unwrap();
    std::fs::write(&path, [0xff]).unwrap();
    let not_text = FeatureStoreConfig::load(&path).unwrap_err();
    std::fs::remove_dir_all(&folder).unwrap();

    assert_eq!(loaded.project.as_deref(), Some(env!("CARGO_PKG_NAME")));
    assert_eq!(loaded.registry.url.database(), Some(&*folder.join("data/registry.db").display().to_string()));
    assert!(not_text.to_string().ends_with("cannot be read: it is not UTF-8 text"), "{not_text}");
}

/// What has broken parsers of YAML, and of variables in text.
const NASTY: [&str; 26] = [
    "",
    "\0",
    "\u{feff}",
    "\u{feff}\u{feff}registry: a",
    "registry: \"\\x",
    "registry: 'a",
    "registry: &a *a",
    "registry: &a [*a]",
    "registry: &a {<<: *a}",
    "<<: registry",
    "? registry\n: a",
    "? [registry]\n: a",
    "registry: !!binary aGk=",
    "registry: !!python/object:os.system x",
    "registry: {path: a, path: b}",
    "registry: {path: 99999999999999999999999999999999999999999999}",
    "registry: {path: 1:2:3:4:5:6:7:8:9}",
    "registry: {cache_ttl_seconds: .inf}",
    "registry: {cache_ttl_seconds: -0x80000000000000000000000000000000}",
    "registry:\t a\n\tb: c",
    "registry: |9\n a",
    "%YAML 9.9\n---\nregistry: a",
    "%TAG ! tag:x,\n---\nregistry: !x a",
    "registry: a\r\r\n\u{85}\u{2028}b: c",
    "registry: ${A}${$A$}${}$é${A",
    "registry: {path: $LINES}",
];

fn nasty_env(name: &str) -> Option<String> {
    match name {
        "A" => Some("a".to_owned()),
        "LINES" => Some("a\nb: $A\r\n\n".to_owned()),
        "YAML" => Some("{path: [&x {<<: *x}]}".to_owned()),
        "" => Some("nothing has this name".to_owned()),
        _ => None,
    }
}

/// Reading it may fail, with an error that names the file.
fn is_read_or_refused(text: &str) -> Result<(), String> {
    match FeatureStoreConfig::parse(text, "store.yaml", nasty_env) {
        Err(error) if !error.to_string().starts_with("store.yaml") => Err(format!("{text:?}: {error}")),
        _ => Ok(()),
    }
}

#[test]
fn nothing_nasty_panics() {
    let mut texts: Vec<String> = NASTY.map(str::to_owned).to_vec();
    for deep in ["[", "{a: ", "- ", "? ", "&a ", "!a ", "${", "$", "\"", "a: |\n"] {
        texts.push(format!("registry: {}", deep.repeat(20_000)));
    }
    // Each level refers to the level before it ten times: ten to the power of thirty nodes, if they were copied.
    let laughs: Vec<String> =
        (1..30).map(|i| format!("a{i}: &a{i} [{}]", vec![format!("*a{}", i - 1); 10].join(", "))).collect();
    texts.push(format!("a0: &a0 [x]\n{}\nregistry: *a29", laughs.join("\n")));
    let merges: Vec<String> =
        (1..30).map(|i| format!("m{i}: &m{i} {{<<: [{}]}}", vec![format!("*m{}", i - 1); 10].join(", "))).collect();
    texts.push(format!("m0: &m0 {{path: a}}\n{}\nregistry: *m29", merges.join("\n")));
    let refused: Vec<_> = texts.iter().filter_map(|text| is_read_or_refused(text).err()).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_of_a_file_panics(text in prop_oneof![
        prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40).prop_map(|all| all.concat()),
        (prop::sample::select(&NASTY[..]), any::<prop::sample::Index>(), prop::sample::select(&PIECES[..])).prop_map(
            |(text, at, piece)| {
                let mut chars: Vec<char> = text.chars().collect();
                chars.splice(at.index(chars.len() + 1)..at.index(chars.len() + 1), piece.chars());
                chars.into_iter().collect::<String>()
            }
        ),
        ".*",
    ]) {
        prop_assert_eq!(is_read_or_refused(&text), Ok(()));
    }

    /// Whatever a variable holds: without a `$` nothing changes, and each line comes from a line that there is.
    #[test]
    fn variables_are_replaced_and_lines_are_found(text in "([$]|[{]|[}]|[\n]|A|LINES|_|é){0,24}", line in any::<usize>()) {
        let expanded = env::expand(&text, nasty_env);
        prop_assert!(text.contains('$') || expanded.text == text);
        let lines = text.matches('\n').count() + 1;
        prop_assert!((1..=lines).contains(&expanded.line_in_file(line)), "{text:?}");
    }
}

const PIECES: [&str; 34] = [
    "registry",
    "project",
    "path",
    "cache_ttl_seconds",
    ":",
    ": ",
    "\n",
    "\n  ",
    "\t",
    "- ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "<<",
    "!!str ",
    "!",
    "|",
    ">-",
    "'",
    "\"",
    "\\",
    "#",
    "%",
    "---\n",
    "...\n",
    "$A",
    "${LINES}",
    "$YAML",
    "é",
];
