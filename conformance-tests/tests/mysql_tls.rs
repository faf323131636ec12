//! Encrypted connections to MySQL, which makes certificates of its own: they name no host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, Deadline, Error, ErrorKind};
use feast_registry_mysql::MySqlBackend;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

#[path = "databases/mod.rs"]
mod databases;

use databases::mysql::Database;

async fn connect(database: &Database, options: &str) -> Result<(), Error> {
    let link = if database.url.contains('?') { '&' } else { '?' };
    let url = format!("{}{link}{options}", database.url).parse().expect("a URL");
    let backend = MySqlBackend::new(&url, &databases::pool(), SchemaMode::Auto)?;
    backend.prepare(&Deadline::after(Duration::from_secs(30))).await
}

/// Who has signed the server's certificate, if the server is of this machine.
async fn issuer(database: &Database) -> Option<PathBuf> {
    let row: Vec<(String, String)> = database.query("SELECT @@datadir, @@ssl_ca").await;
    let (folder, file) = row.into_iter().next().expect("a row");
    Some(Path::new(&folder).join(file)).filter(|file| file.is_file())
}

/// A certificate that has signed nothing.
fn another_issuer(folder: &Path) -> PathBuf {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
    let file = folder.join("other.pem");
    std::fs::write(&file, issuer.pem()).expect("a file");
    file
}

#[track_caller]
fn assert_refused(outcome: Result<(), Error>) {
    let error = outcome.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.to_string().contains("certificate is not accepted"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_much_is_checked_as_is_asked_for() {
    if databases::without("MYSQL").is_some() {
        return;
    }
    let database = Database::create("MYSQL").await;
    connect(&database, "ssl_mode=REQUIRED").await.expect("whoever it is");
    connect(&database, "ssl_disabled=true").await.expect("in the clear");
    // Nobody whom the world trusts.
    assert_refused(connect(&database, "ssl_mode=VERIFY_CA").await);
    let folder = tempfile::tempdir().expect("a folder");
    let other = another_issuer(folder.path()).display().to_string();
    assert_refused(connect(&database, &format!("ssl_mode=VERIFY_CA&ssl_ca={other}")).await);
    assert_refused(connect(&database, &format!("ssl_ca={other}&ssl_check_hostname=false")).await);
    connect(&database, &format!("ssl_mode=REQUIRED&ssl_ca={other}")).await.expect("nothing is checked");
    if let Some(issuer) = issuer(&database).await {
        let issuer = issuer.display();
        connect(&database, &format!("ssl_mode=VERIFY_CA&ssl_ca={issuer}")).await.expect("its issuer");
        connect(&database, &format!("ssl_ca={issuer}&ssl_check_hostname=false")).await.expect("its issuer");
        assert_refused(connect(&database, &format!("ssl_mode=VERIFY_IDENTITY&ssl_ca={issuer}")).await);
        assert_refused(connect(&database, &format!("ssl_ca={issuer}")).await);
    }
    database.remove().await;
}
