//! Registries opened by their URLs.

use feast_registry_core::config::{RegistryConfig, SchemaMode};
use feast_registry_core::{Backend, ErrorKind, MemoryBackend, proto};

use super::*;
use crate::{open, open_read_only};

#[tokio::test]
async fn a_registry_is_opened_by_its_url() {
    let config = RegistryConfig::new("memory://".parse().expect("a URL"));
    assert_eq!(open(&config).await.expect("a registry").location(), "memory://");
}

#[tokio::test]
async fn a_missing_backend_is_named_with_the_remedy_and_without_the_password() {
    let config = RegistryConfig::new("oracle://me:secret@db/feast".parse().expect("a URL"));
    let error = open(&config).await.expect_err("no backend").to_string();
    assert!(error.contains("oracle://me:***@db/feast") && error.contains("Schemes::with"), "{error}");
    assert!(error.ends_with("memory://"), "{error}");
    let config = RegistryConfig::new("postgres://me:secret@db/feast".parse().expect("a URL"));
    let error = open(&config).await.expect_err("no backend").to_string();
    assert!(error.contains("write `postgresql://` instead") && !error.contains("secret"), "{error}");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn opening_to_read_makes_nothing_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("registry.db");
    let config = RegistryConfig::new(format!("sqlite:///{}", file.display()).parse().expect("a URL"));
    let missing = open_read_only(&config).await.expect_err("no file");
    assert_eq!(missing.kind(), ErrorKind::SchemaMissing, "{missing}");
    std::fs::write(&file, b"").expect("an empty file");
    assert_eq!(open_read_only(&config).await.expect_err("no tables").kind(), ErrorKind::SchemaMissing);
    assert_eq!(std::fs::read(&file).expect("the file"), b"");
    drop(open(&config).await.expect("a registry"));
    let before = std::fs::read(&file).expect("the file");
    let registry = open_read_only(&config).await.expect("a registry");
    let project = proto::core::Project {
        spec: Some(proto::core::ProjectSpec { name: "rides".to_owned(), ..Default::default() }),
        meta: None,
    };
    assert_eq!(registry.apply("rides", &project).await.expect_err("a write").kind(), ErrorKind::ReadOnly);
    assert_eq!(std::fs::read(&file).expect("the file"), before);
    // It counts too when the configuration itself says so, and whoever opens it.
    let config = config.for_reading();
    let registry = open(&config).await.expect("a registry");
    assert_eq!(registry.apply("rides", &project).await.expect_err("a write").kind(), ErrorKind::ReadOnly);
    assert!(RegistryOptions::from(&config).read_only);
    let schemes = Schemes::default();
    assert_eq!(schemes.migrate(&config).await.expect_err("a change").kind(), ErrorKind::ReadOnly);
    assert_eq!(std::fs::read(&file).expect("the file"), before);
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn tables_that_are_made_later_are_not_asked_for_when_opening() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:///{}", folder.path().join("registry.db").display());
    let mut config = RegistryConfig::new(url.parse().expect("a URL"));
    config.schema_mode = SchemaMode::Skip;
    let early = open(&config).await.expect("a registry without tables");
    assert_eq!(early.ping().await.expect_err("no tables").kind(), ErrorKind::SchemaMissing);
    config.schema_mode = SchemaMode::Auto;
    drop(open(&config).await.expect("a registry"));
    early.ping().await.expect("the tables are there now");
}

#[cfg(all(feature = "sqlite", feature = "file"))]
#[tokio::test]
async fn a_file_of_another_kind_is_named_with_what_to_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let config = |url: String| RegistryConfig::new(url.parse().expect("a URL"));
    drop(open(&config(format!("sqlite:///{}", path("sqlite.db")))).await.expect("a registry"));
    let registry = open(&config(path("file.db"))).await.expect("a registry");
    let project = proto::core::Project {
        spec: Some(proto::core::ProjectSpec { name: "rides".to_owned(), ..Default::default() }),
        meta: None,
    };
    registry.apply("rides", &project).await.expect("a project");
    drop(registry);
    std::fs::write(path("noise.db"), [0xff; 5000]).expect("a file");
    for (url, expected) in [
        (path("sqlite.db"), format!("is opened with `registry_type: sql` and `path: sqlite:///{}`", path("sqlite.db"))),
        (format!("sqlite:///{}", path("file.db")), format!("`registry_type: file` and `path: {}`", path("file.db"))),
        (format!("sqlite:///{}", path("noise.db")), "is not a SQLite database".to_owned()),
    ] {
        let config = config(url);
        for error in [open(&config).await.expect_err("another kind"), open_read_only(&config).await.expect_err("too")] {
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }
    let kept = std::fs::read(path("sqlite.db")).expect("the file");
    assert!(kept.starts_with(b"SQLite format 3"), "it was written over");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn options_of_a_sqlite_url_count_or_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = |query: &str| {
        let url = format!("sqlite:///{}{query}", folder.path().join("registry.db").display());
        RegistryConfig::new(url.parse().expect("a URL"))
    };
    let project = proto::core::Project {
        spec: Some(proto::core::ProjectSpec { name: "rides".to_owned(), ..Default::default() }),
        meta: None,
    };
    // To be read only: nothing is made, and nothing is written.
    assert_eq!(open(&config("?mode=ro")).await.expect_err("no file").kind(), ErrorKind::SchemaMissing);
    let registry = open(&config("?check_same_thread=false&timeout=1")).await.expect("a registry");
    let reader = open(&config("?mode=ro")).await.expect("a registry");
    assert_eq!(reader.apply("rides", &project).await.expect_err("a write").kind(), ErrorKind::ReadOnly);
    registry.apply("rides", &project).await.expect("a write");
    for wrong in ["?moed=ro", "?mode=memory"] {
        let error = open(&config(wrong)).await.expect_err(wrong);
        assert_eq!(Schemes::default().check(&config(wrong)).expect_err(wrong).to_string(), error.to_string());
    }
    Schemes::default().check(&config("?mode=ro")).expect("a configuration that can be");
}

#[cfg(not(feature = "sqlite"))]
#[tokio::test]
async fn a_backend_that_was_left_out_names_its_feature() {
    let config = RegistryConfig::new("sqlite:///registry.db".parse().expect("a URL"));
    let error = open(&config).await.expect_err("no backend").to_string();
    assert!(error.contains("Cargo feature `sqlite`"), "{error}");
}

/// A backend of another crate: an open storage is in memory, whatever its path.
#[derive(Debug)]
struct Leaf;

impl Scheme for Leaf {
    fn names(&self) -> &'static [&'static str] {
        &["leaf"]
    }

    fn example(&self) -> &'static str {
        "leaf:///var/registry.leaf"
    }

    fn check(&self, config: &RegistryConfig) -> Result<()> {
        config.url.refuse_options_but(&["cache"])?;
        config.refuse_replica()?;
        config.url.path().map(drop).ok_or_else(|| Error::config("a path is missing"))
    }

    fn open(&self, config: &RegistryConfig) -> Result<Arc<dyn Backend>> {
        assert_eq!(config.url.path().as_deref(), Some("/var/registry.leaf"));
        assert_eq!(config.read_only, config.schema_mode == SchemaMode::Verify);
        Ok(Arc::new(MemoryBackend::new()))
    }

    fn is_read_only(&self, url: &RegistryUrl) -> bool {
        url.query().iter().any(|(_, value)| value == "read")
    }
}

#[tokio::test]
async fn a_scheme_of_another_crate_is_opened_as_ours_are() {
    let schemes = Schemes::default().with(Leaf);
    let config = |text: &str| RegistryConfig::new(text.parse().expect("a URL"));
    let project = proto::core::Project {
        spec: Some(proto::core::ProjectSpec { name: "rides".to_owned(), ..Default::default() }),
        meta: None,
    };
    let registry = schemes.open(&config("leaf:///var/registry.leaf")).await.expect("a registry");
    registry.apply("rides", &project).await.expect("a write");
    let reader = schemes.open(&config("leaf:///var/registry.leaf?cache=read")).await.expect("a registry");
    assert_eq!(reader.apply("rides", &project).await.expect_err("a write").kind(), ErrorKind::ReadOnly);
    // What cannot be is refused before anything is opened.
    for (wrong, expected) in [
        ("leaf://", "a path is missing"),
        ("leaf:///x?chache=1", "there is no option `chache`; there are cache"),
        ("leaf://me:secret@db/x", "a path is missing"),
    ] {
        let error = schemes.open(&config(wrong)).await.expect_err(wrong).to_string();
        assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        assert_eq!(schemes.check(&config(wrong)).expect_err(wrong).to_string(), error);
    }
    let mut with_replica = config("leaf:///var/registry.leaf");
    with_replica.read_url = Some("leaf:///var/other.leaf".parse().expect("a URL"));
    let error = schemes.open(&with_replica).await.expect_err("a replica").to_string();
    assert!(error.contains("`read_path` is `leaf:///var/other.leaf`"), "{error}");
    assert_eq!(schemes.migrate(&config("leaf:///var/registry.leaf")).await.expect("nothing to do"), [""; 0]);
}

#[tokio::test]
async fn a_scheme_that_is_not_there_is_named_with_the_remedy() {
    let config = RegistryConfig::new("leaf:///var/registry.leaf".parse().expect("a URL"));
    let error = open(&config).await.expect_err("no backend").to_string();
    assert!(error.contains("no backend for `leaf://`") && error.contains("`Schemes::with`"), "{error}");
}

#[test]
fn the_later_one_of_a_name_counts() {
    #[derive(Debug)]
    struct Other;
    impl Scheme for Other {
        fn names(&self) -> &'static [&'static str] {
            &["memory"]
        }
        fn example(&self) -> &'static str {
            "memory://mine"
        }
        fn check(&self, _: &RegistryConfig) -> Result<()> {
            Err(Error::config("it is mine"))
        }
        fn open(&self, config: &RegistryConfig) -> Result<Arc<dyn Backend>> {
            self.check(config).map(|()| unreachable!("refused"))
        }
    }
    let schemes = Schemes::default().with(Leaf).with(Other);
    let first: Vec<&str> = schemes.examples().take(2).collect();
    assert_eq!(first, ["memory://mine", "leaf:///var/registry.leaf"]);
    assert!(!schemes.examples().any(|example| example == "memory://"), "it is replaced");
    let error = schemes.check(&RegistryConfig::new("memory://".parse().expect("a URL"))).expect_err("refused");
    assert_eq!(error.to_string(), "it is mine");
}

#[test]
#[should_panic(expected = "can be in no URL")]
fn a_name_that_no_url_can_have_is_a_mistake_of_the_program() {
    #[derive(Debug)]
    struct Loud;
    impl Scheme for Loud {
        fn names(&self) -> &'static [&'static str] {
            &["Leaf"]
        }
        fn example(&self) -> &'static str {
            "Leaf://"
        }
        fn check(&self, _: &RegistryConfig) -> Result<()> {
            Ok(())
        }
        fn open(&self, _: &RegistryConfig) -> Result<Arc<dyn Backend>> {
            Ok(Arc::new(MemoryBackend::new()))
        }
    }
    drop(Schemes::default().with(Loud));
}
