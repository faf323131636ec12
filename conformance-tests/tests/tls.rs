//! Encrypted connections, to a PostgreSQL server of the test's own that takes no others.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use feast_registry_core::config::{PoolConfig, SchemaMode};
use feast_registry_core::{Backend, Deadline, ErrorKind};
use feast_registry_postgres::PostgresBackend;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

#[path = "databases/mod.rs"]
mod databases;

/// A server that runs until it is dropped.
struct Server {
    folder: TempDir,
    port: u16,
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT ends it at once; what it has stored is thrown away.
        let _ = Command::new("kill").args(["-QUIT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }
}

impl Server {
    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        make_certificates(folder.path());
        let data = folder.path().join("data");
        // PostgreSQL does not run as root, unless through programs that see to it.
        let owner = databases::runs_as();
        if let Some(owner) = owner {
            chown(folder.path(), Some(owner), None).expect("the folder for the server's user");
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
            for entry in fs::read_dir(folder.path()).expect("the folder") {
                chown(entry.expect("a file").path(), Some(owner), None).expect("a file for the server's user");
            }
        }
        let command = |program: &str| {
            let mut command = Command::new(databases::postgres_programs().join(program));
            command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir(folder.path());
            if let Some(owner) = owner {
                command.uid(owner);
            }
            command
        };
        let mut initdb = command("initdb");
        initdb.args(["--auth=trust", "--username=feast", "--no-sync", "--encoding=UTF8", "-D"]).arg(&data);
        assert!(initdb.status().expect("initdb").success(), "initdb");
        // Only encrypted connections; to the database `template1` only with a certificate of the client's.
        let rules = "hostssl template1 all 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 trust\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("pg_hba.conf");
        let port = databases::free_port();
        let setting = |name: &str, file: &str| format!("{name}={}", folder.path().join(file).display());
        let mut postgres = command("postgres");
        postgres.arg("-D").arg(&data).args(["-p", &port.to_string(), "-k", ""]);
        for setting in [
            "ssl=on".to_owned(),
            "fsync=off".to_owned(),
            "listen_addresses=127.0.0.1".to_owned(),
            setting("ssl_cert_file", "server.crt"),
            setting("ssl_key_file", "server.key"),
            setting("ssl_ca_file", "ca.crt"),
        ] {
            postgres.args(["-c", &setting]);
        }
        let process = postgres.stderr(Stdio::null()).spawn().expect("postgres");
        Self { folder, port, process }
    }
}

/// Two issuers; the server's certificate and the client's are of the one.
fn make_certificates(folder: &Path) {
    let issuer = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).expect("a certificate");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an issuer")
    };
    let write = |name: &str, text: String| {
        let path: PathBuf = folder.join(name);
        fs::write(&path, text).expect(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect(name);
    };
    let (ours, other) = (issuer("ours"), issuer("other"));
    write("ca.crt", ours.pem());
    write("other.crt", other.pem());
    for (name, common_name) in [("server", "localhost"), ("client", "feast")] {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a certificate");
        params.distinguished_name.push(DnType::CommonName, common_name);
        write(&format!("{name}.crt"), params.signed_by(&key, &ours).expect("a certificate").pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

/// What connecting comes to.
async fn connect(server: &Server, host: &str, database: &str, options: &str) -> Result<(), (ErrorKind, String)> {
    let url = format!("postgresql://feast@{host}:{}/{database}?{options}", server.port);
    let backend = PostgresBackend::new(&url.parse().expect("a URL"), &PoolConfig::default(), SchemaMode::Auto)
        .map_err(|error| (error.kind(), error.to_string()))?;
    backend.prepare(&Deadline::after(Duration::from_secs(30))).await.map_err(|error| (error.kind(), error.to_string()))
}

#[tokio::test]
async fn the_server_and_the_client_are_verified_as_libpq_does() {
    if databases::without("POSTGRES").is_some() {
        return;
    }
    let server = Server::start();
    let began = Instant::now();
    while let Err((kind, error)) = connect(&server, "127.0.0.1", "postgres", "sslmode=require").await {
        assert!(kind == ErrorKind::Unavailable && began.elapsed() < Duration::from_secs(30), "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (ours, other) = (server.file("ca.crt"), server.file("other.crt"));
    let client = format!("sslcert={}&sslkey={}", server.file("client.crt"), server.file("client.key"));
    for (host, database, options, problem) in [
        ("127.0.0.1", "postgres", "sslmode=prefer".to_owned(), None),
        ("127.0.0.1", "postgres", "sslmode=disable".to_owned(), Some("password is not accepted")),
        // A root makes `require` verify; but not the name.
        ("127.0.0.1", "postgres", format!("sslmode=require&sslrootcert={ours}"), None),
        ("127.0.0.1", "postgres", format!("sslmode=require&sslrootcert={other}"), Some("invalid peer certificate")),
        ("127.0.0.1", "postgres", format!("sslmode=verify-ca&sslrootcert={ours}"), None),
        ("127.0.0.1", "postgres", format!("sslmode=verify-ca&sslrootcert={other}"), Some("invalid peer certificate")),
        ("localhost", "postgres", format!("sslmode=verify-full&sslrootcert={ours}"), None),
        ("127.0.0.1", "postgres", format!("sslmode=verify-full&sslrootcert={ours}"), Some("not valid for name")),
        ("localhost", "postgres", format!("sslmode=verify-full&sslrootcert={other}"), Some("invalid peer certificate")),
        ("localhost", "template1", format!("sslmode=verify-full&sslrootcert={ours}&{client}"), None),
        ("localhost", "template1", format!("sslmode=verify-full&sslrootcert={ours}"), Some("password is not accepted")),
        ("localhost", "postgres", "sslmode=verify-full&sslrootcert=absent.crt".to_owned(), Some("absent.crt")),
        // What else may be wrong about a connection.
        ("127.0.0.1", "postgres", "options=-csearch_path%3Dabsent".to_owned(), Some("create it first")),
        ("127.0.0.1", "absent", "sslmode=prefer".to_owned(), Some("there is no such database")),
    ] {
        match (connect(&server, host, database, &options).await, problem) {
            (Ok(()), None) => {}
            (Err((_, error)), Some(problem)) => assert!(error.contains(problem), "{host} {options}: {error}"),
            (outcome, expected) => panic!("{host} {options}: {outcome:?}, and expected was {expected:?}"),
        }
    }
}
