use std::fs;
use std::path::Path;

use rcgen::KeyPair;
use tempfile::TempDir;

use super::*;

pub(crate) mod certificates;

use certificates::{client, intermediate, issuer, server};

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("a file");
    path
}

/// What certificate clients are shown.
fn shown(tls: &Tls) -> Option<identity::Validity> {
    tls.in_force().validity.clone()
}

fn error(files: TlsFiles) -> String {
    Tls::open(files).expect_err("it cannot be used").to_string()
}

/// A section of PEM that holds nothing of what it says, as for what is never looked at.
fn section(name: &str, headers: &str) -> String {
    format!("-----BEGIN {name}-----\n{headers}aGVsbG8=\n-----END {name}-----\n")
}

#[test]
fn what_is_no_key_is_said_to_be_what_it_is() {
    let folder = TempDir::new().expect("a folder");
    let (certificate, key) = server(&issuer("a")).write(folder.path(), "server");
    let certificate_text = fs::read_to_string(&certificate).expect("text");
    let whole = fs::read_to_string(&key).expect("text");
    let encrypted = "is encrypted, and there is nobody to ask for its password: decrypt it (openssl pkey";
    let header = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n";
    for (text, says) in [
        ("hello", "`-----BEGIN PRIVATE KEY-----`"),
        ("", "it is empty"),
        (&certificate_text, "it holds a certificate, which belongs to --cert"),
        (&whole[..whole.len() / 2], "it is damaged"),
        (&section("ENCRYPTED PRIVATE KEY", ""), encrypted),
        (&section("RSA PRIVATE KEY", header), encrypted),
        (&section("PRIVATE KEY", ""), "or of a kind that is not supported: take RSA of 2048 to 8192 bits"),
        (&section("CERTIFICATE REQUEST", ""), "a request for a certificate"),
    ] {
        let path = written(folder.path(), "other.key", text);
        let error = error(TlsFiles::new(&certificate, &path));
        let names = error.starts_with("--key: ") && error.contains(&path.display().to_string());
        assert!(names && error.contains(says), "{says}: {error}");
        assert!(!error.contains("aGVsbG8") && !error.contains(&whole[30..60]), "it tells of the key: {error}");
    }
    let absent = error(TlsFiles::new(&certificate, folder.path().join("absent.key")));
    assert!(absent.contains("--key: ") && absent.contains("absent.key cannot be read: No such file"), "{absent}");
}

#[test]
fn what_is_no_certificate_is_said_to_be_what_it_is() {
    let folder = TempDir::new().expect("a folder");
    let (certificate, key) = server(&issuer("a")).write(folder.path(), "server");
    let key_text = fs::read_to_string(&key).expect("text");
    let whole = fs::read_to_string(&certificate).expect("text");
    for (text, says) in [
        ("hello", "`-----BEGIN CERTIFICATE-----`"),
        (" \n", "it is empty"),
        (&key_text, "it holds a private key, which belongs to --key"),
        (&whole[..whole.len() / 2], "is damaged"),
        (&section("CERTIFICATE", ""), "is damaged"),
        (&"x".repeat(2 << 20), "larger than 1 MiB"),
    ] {
        let path = written(folder.path(), "other.crt", text);
        let error = error(TlsFiles::new(&path, &key));
        let names = error.starts_with("--cert: ") && error.contains(&path.display().to_string());
        assert!(names && error.contains(says), "{says}: {error}");
        // The same of the certificates that those of clients are signed by.
        let error = self::error(TlsFiles::new(&certificate, &key).with_client_ca(&path));
        assert!(error.starts_with("--client-ca: ") && error.contains(&path.display().to_string()), "{error}");
    }
    let error = error(TlsFiles::new(&certificate, &key).with_identities());
    assert!(error.contains("--client-cert-identity needs --client-ca"), "{error}");
}

#[test]
fn a_key_must_be_that_of_the_first_certificate() {
    let folder = TempDir::new().expect("a folder");
    let root = issuer("root");
    let between = intermediate("between", &root);
    let own = server(&between);
    let (certificate, key) = own.write(folder.path(), "server");
    let other = written(folder.path(), "another.key", &KeyPair::generate().expect("a key").serialize_pem());
    let error = error(TlsFiles::new(&certificate, &other));
    assert!(
        error.contains("another.key is not that of the certificate in ") && error.contains("server.crt"),
        "{error}"
    );

    let chain = format!("{}{}", own.certificate, between.pem());
    Tls::open(TlsFiles::new(written(folder.path(), "chain.crt", &chain), &key)).expect("a chain");
    let reversed = written(folder.path(), "reversed.crt", &format!("{}{}", between.pem(), own.certificate));
    let error = self::error(TlsFiles::new(&reversed, &key));
    assert!(error.contains("own certificate is number 2 in ") && error.contains("it must be the first"), "{error}");
    // All may be in one file, with parameters of the key's curve and words between.
    let all = format!("Subject: x\n{}{}{chain}", section("EC PARAMETERS", ""), own.key);
    let all = written(folder.path(), "all.pem", &all);
    Tls::open(TlsFiles::new(&all, &all)).expect("one file");
}

#[tokio::test]
async fn what_cannot_be_used_leaves_what_was_there_before() {
    let folder = TempDir::new().expect("a folder");
    let issuer = issuer("a");
    let years = |year| {
        certificates::pair(&issuer, |params| params.not_after = rcgen::date_time_ymd(year, 1, 1))
            .write(folder.path(), "server")
    };
    let (certificate, key) = years(2041);
    let tls = Tls::open(TlsFiles::new(&certificate, &key)).expect("a pair");
    let end = || shown(&tls).expect("a certificate").text;
    let grpc = tls.config(Speaks::Http2);
    let first_key = fs::read(&key).expect("a key");
    years(2042);
    fs::write(&key, &first_key).expect("a file");
    let error = tls.reload().await.expect_err("a pair that does not match").to_string();
    assert!(error.contains("is not that of the certificate"), "{error}");
    assert!(end().starts_with("2041") && Arc::ptr_eq(&grpc, &tls.config(Speaks::Http2)));
    fs::remove_file(&certificate).expect("it was there");
    let error = tls.reload().await.expect_err("no file").to_string();
    assert!(error.contains("server.crt cannot be read") && end().starts_with("2041"), "{error}");
    years(2043);
    tls.reload().await.expect("a pair");
    assert!(end().starts_with("2043") && !Arc::ptr_eq(&grpc, &tls.config(Speaks::Http2)));
    assert!(Arc::ptr_eq(&tls.config(Speaks::Http1), &tls.clone().config(Speaks::Http1)), "clones share it");
}

/// A session that is taken up again brings the certificate of its beginning along, which is verified no more.
#[test]
fn who_needs_a_certificate_shows_it_each_time() {
    let folder = TempDir::new().expect("a folder");
    let issuer = issuer("a");
    let (certificate, key) = server(&issuer).write(folder.path(), "server");
    let ca = written(folder.path(), "ca.crt", &issuer.pem());
    let files = TlsFiles::new(&certificate, &key);
    let (open, mutual) = (Tls::open(files.clone()), Tls::open(files.with_client_ca(&ca)));
    let (open, mutual) = (open.expect("a pair"), mutual.expect("a pair"));
    assert!(open.config(Speaks::Http2).session_storage.can_cache());
    let config = mutual.config(Speaks::Http2);
    assert!(!config.session_storage.can_cache() && config.send_tls13_tickets == 0 && !config.ticketer.enabled());
    assert!(mutual.is_mutual() && !open.is_mutual());
}

#[test]
fn what_is_shown_for_debugging_has_no_secret() {
    let folder = TempDir::new().expect("a folder");
    let pair = client(&issuer("a"), "ann", "fleet");
    let (certificate, key) = pair.write(folder.path(), "server");
    let shown = format!("{:?}", Tls::open(TlsFiles::new(certificate, key)).expect("a pair"));
    assert!(shown.starts_with("Tls { files: TlsFiles {") && shown.contains("server.key"), "{shown}");
    assert!(shown.len() < 600 && !shown.contains(pair.key.lines().nth(1).expect("a line")), "{shown}");
}
