//! What is odd about configurations: variables that do not exist, what has no effect, and several errors at once.

use feast_registry_core::config::{CacheMode, SchemaMode};

use super::*;

fn inspect(text: &str) -> Inspection {
    let env = |name: &str| (name == "SET").then(|| "a$b".to_owned());
    Inspection::of_text(text, "store.yaml", PathBuf::from("repo"), env)
}

fn lines(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(Finding::to_string).collect()
}

/// Reads what can be used, with these warnings.
fn warned(text: &str) -> (FeatureStoreConfig, Vec<String>) {
    let inspection = inspect(text);
    assert_eq!(lines(&inspection.errors), [""; 0], "{text}");
    let config = inspection.into_config().expect(text);
    let warnings = lines(&config.warnings);
    (config, warnings)
}

fn sql(settings: &str) -> String {
    format!("registry:\n  registry_type: sql\n  path: postgresql://u@h/d\n{settings}")
}

#[test]
fn a_variable_that_is_needed_and_not_set_is_an_error() {
    for (text, line, setting, name) in [
        ("registry: ${REGISTRY}", 1, "`registry`", "`REGISTRY`"),
        ("registry: $REGISTRY", 1, "`registry`", "`REGISTRY`"),
        ("registry: a\nproject: ${PROJECT}", 2, "`project`", "`PROJECT`"),
        ("registry:\n  path: data/${STAGE}/registry.db", 2, "`registry.path`", "`STAGE`"),
        ("registry:\n  path: '${SET}${UNSET}'", 2, "`registry.path`", "`UNSET`"),
        ("base: &base\n  path: ${UNSET}\nregistry:\n  <<: *base", 2, "`registry.path`", "`UNSET`"),
        (&sql("  cache_ttl_seconds: $TTL"), 4, "`registry.cache_ttl_seconds`", "`TTL`"),
        (&sql("  ${KEY}: a"), 4, "the name of a setting in `registry`", "`KEY`"),
        (
            &sql("  sqlalchemy_config_kwargs: {connect_args: {password: '${DB_PASSWORD}'}}"),
            4,
            "`registry.sqlalchemy_config_kwargs.connect_args.password`",
            "`DB_PASSWORD`",
        ),
        ("registry: ${A B:-c}", 1, "`registry`", "of 6 characters, which is not shown"),
    ] {
        let errors = lines(&inspect(text).errors);
        let expected =
            format!("store.yaml, line {line}: {setting} needs the environment variable {name}, which is not set");
        assert_eq!(errors, [expected], "{text}");
    }
    let broken = lines(&inspect("registry: {path: ${UNSET}}").errors);
    assert!(
        broken.len() == 1 && broken[0].ends_with("the environment variable `UNSET`, which is in this line, is not set")
    );
}

#[test]
fn a_variable_that_is_not_set_does_not_matter_where_nothing_is_used() {
    for text in [
        "registry: a\nonline_store: {connection_string: '${REDIS}'}\nbatch_engine: $ENGINE",
        "registry: a # ${COMMENT}",
        "registry: # ${COMMENT}\n  path: a # $COMMENT\n  # ${COMMENT}\n  cache_ttl_seconds: 5",
        // What a variable brings in is not looked through.
        "registry: $SET",
        "registry: '$$ $ 5$'",
    ] {
        assert_eq!(warned(text).1, [""; 0], "{text}");
    }
}

#[test]
fn a_dollar_that_may_belong_to_a_password_stays_and_is_not_repeated() {
    for (text, setting, is_kept) in [
        (sql("").replace("u@h", "u:pa$$hunter2@h"), "registry.path", "pa$$hunter2"),
        (sql("").replace("u@h", "u:$hunter2@h"), "registry.path", "$hunter2"),
        (
            sql("  sqlalchemy_config_kwargs: {connect_args: {password: $hunter2}}"),
            "registry.sqlalchemy_config_kwargs.connect_args.password",
            "$hunter2",
        ),
    ] {
        let (config, warnings) = warned(&text);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(&format!("`{setting}` has a `$` in it")), "{warnings:?}");
        assert!(!warnings[0].contains("hunter2"), "{warnings:?}");
        let url = &config.registry.url;
        let password = url.password().or(url.query().first().map(|(_, value)| &**value));
        assert_eq!(password, Some(is_kept));
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_by_line() {
    let text = "
project: a.b
registry:
  registry_type: sql
  cache_mode: async
  path: sqlite:///r.db
  colour: red
  sqlalchemy_config_kwargs:
    pool_size: -1
    future: true
    max_overflow: 3
    connect_args: {a: [], b: 1}
";
    let inspection = inspect(text);
    let found = |findings: &[Finding]| findings.iter().map(|finding| finding.line).collect::<Vec<_>>();
    assert_eq!(found(&inspection.errors), [2, 5, 7, 9, 12].map(Some), "{:?}", lines(&inspection.errors));
    assert_eq!(found(&inspection.warnings), [Some(10)]);
    assert!(inspection.config.is_none());
    let error = inspection.into_config().expect_err("it cannot be used").to_string();
    assert!(error.starts_with("store.yaml, line 2: `project` must be") && !error.contains('\n'), "{error}");
    for line in [5, 7, 9, 12] {
        assert!(error.contains(&format!("; also, line {line}: `registry")), "{error}");
    }
    // What is not known of the registry is no reason to complain of its settings.
    assert_eq!(inspect("registry:\n  registry_type: snowflake.registry\n  account: a\n  user: b").errors.len(), 1);
    // What is missing comes first.
    assert_eq!(found(&inspect("project: a.b").errors), [None, Some(1)]);
}

#[test]
fn settings_of_sqlalchemy_without_an_effect_pass_with_a_warning() {
    for setting in [
        "echo_pool: true",
        "pool_use_lifo: true",
        "pool_reset_on_return: rollback",
        "pool_reset_on_return: null",
        "future: true",
        "query_cache_size: 1200",
        "hide_parameters: true",
        "logging_name: a",
        "pool_logging_name: a",
        "insertmanyvalues_page_size: 100",
        "label_length: 10",
        "max_identifier_length: 60",
        "client_encoding: utf8",
        "execution_options: {stream_results: true}",
    ] {
        let (config, warnings) = warned(&sql(&format!("  sqlalchemy_config_kwargs:\n    pool_size: 7\n    {setting}")));
        let name = setting.split_once(':').expect("a name").0;
        assert_eq!(config.registry.pool.size, 7);
        let start =
            format!("store.yaml, line 6: `registry.sqlalchemy_config_kwargs.{name}` is a setting of SQLAlchemy's");
        assert!(warnings.len() == 1 && warnings[0].starts_with(&start), "{warnings:?}");
    }
    for (setting, expected) in [
        ("poolclass: NullPool", "has no setting `poolclass`"),
        ("pool_sise: 5", "has no setting `pool_sise`"),
        // It would be another registry.
        ("execution_options: {schema_translate_map: {null: team}}", "name the schema in `connect_args`"),
    ] {
        let errors = lines(&inspect(&sql(&format!("  sqlalchemy_config_kwargs:\n    {setting}"))).errors);
        assert!(errors.len() == 1 && errors[0].contains(expected), "{errors:?}");
    }
}

#[test]
fn what_other_parts_of_feast_write_into_the_block_passes() {
    // As Feast's operator writes it.
    let text = "  cache_mode: none\n  mcp: {enabled: true}\n  cert: ''\n  is_tls: false\n  client_key: null\n";
    let (config, warnings) = warned(&sql(text));
    assert_eq!((config.registry.cache.mode, warnings.len()), (CacheMode::Sync, 0));
    // Who sets these may believe that something is encrypted.
    for (setting, name) in [("is_tls: true", "is_tls"), ("cert: /tls/ca.crt", "cert"), ("authority: a", "authority")] {
        let (_, warnings) = warned(&sql(&format!("  {setting}")));
        assert!(warnings.len() == 1 && warnings[0].contains(&format!("`registry.{name}` is for clients of a server")));
    }
    assert_eq!(lines(&inspect(&sql("  certificate: a")).errors).len(), 1);
}

#[test]
fn schema_mode_is_for_files_too() {
    let (config, warnings) = warned("registry:\n  path: data/registry.db\n  schema_mode: verify");
    assert_eq!((config.registry.schema_mode, warnings.len()), (SchemaMode::Verify, 0));
}

#[test]
fn schemes_that_others_use_are_named_by_the_right_ones() {
    for (text, expected) in [
        (
            sql("").replace("postgresql", "postgres"),
            "`registry.path` is a URL with `postgres://`; write `postgresql://`",
        ),
        (sql("").replace("postgresql", "cockroachdb"), "write `postgresql://` instead"),
        ("registry: s3a://bucket/registry.db".to_owned(), "is a URL with `s3a://`; write `s3://` instead"),
        ("registry: gcs://bucket/registry.db".to_owned(), "write `gs://` instead"),
    ] {
        let errors = lines(&inspect(&text).errors);
        assert!(errors.len() == 1 && errors[0].contains(expected), "{errors:?}");
    }
    for driver in ["+asyncpg", "+psycopg", "+psycopg2", ""] {
        assert_eq!(
            warned(&sql("").replace("postgresql", &format!("postgresql{driver}"))).0.registry.url.scheme(),
            "postgresql"
        );
    }
    // To Feast, a class that is named reads any scheme.
    for (class, scheme, expected) in [("S3RegistryStore", "s3a", "s3"), ("GCSRegistryStore", "gcs", "gs")] {
        let text = format!("registry:\n  path: {scheme}://bucket/a/b.db\n  registry_store_type: {class}");
        let url = warned(&text).0.registry.url;
        assert_eq!((url.scheme(), url.host(), url.database()), (expected, Some("bucket"), Some("a/b.db")));
    }
}

#[test]
fn settings_are_found_where_they_are() {
    let env = |name: &str| (name == "LINES").then(|| "a: b\nc: d".to_owned());
    let text = "$LINES\nregistry:\n  path: r.db\n  cache_ttl_seconds: 5\nproject: a";
    let config = Inspection::of_text(text, "store.yaml", PathBuf::new(), env).into_config().expect("a configuration");
    let lines = ["project", "registry.path", "registry.cache_ttl_seconds", "registry.cache_mode", "c"];
    assert_eq!(lines.map(|name| config.line_of(name)), [Some(5), Some(3), Some(4), None, None]);
    assert_eq!(warned("\nregistry: r.db").0.line_of("registry.path"), Some(2));
}

#[test]
fn a_folder_stands_for_the_file_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("feature_store.yaml"), "registry: data/registry.db").expect("a file");
    let database = |folder: &Path| Some(folder.join("data/registry.db").display().to_string());
    let config = FeatureStoreConfig::load(folder.path()).expect("a configuration");
    assert_eq!(config.registry.url.database().map(str::to_owned), database(folder.path()));
    let elsewhere =
        Inspection::of_file(folder.path(), Some(Path::new("/work"))).into_config().expect("a configuration");
    assert_eq!(elsewhere.registry.url.database().map(str::to_owned), database(Path::new("/work")));
    let missing = FeatureStoreConfig::load(&folder.path().join("nothing.yaml")).expect_err("there is none").to_string();
    assert!(missing.contains("nothing.yaml: the file cannot be read: "), "{missing}");
}
