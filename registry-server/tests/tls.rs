//! TLS, as the binary `feast-registry serve` speaks it: certificates, mutual TLS, files that change, and what the log says.

#[path = "../src/tls/tests/certificates.rs"]
#[allow(dead_code, reason = "not all tests that share this use all of it")]
mod certificates;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use certificates::{Issuer, Pair};
use feast_registry_server::proto::registry_server_client::RegistryServerClient;
use rcgen::{CertificateParams, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// HTTP/2's preface and empty settings.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The files are looked at every few seconds, and waited for until they stay as they are.
const SOON: Duration = Duration::from_secs(20);

/// A folder with certificates, and with a registry once a server runs there.
struct Fixture {
    folder: TempDir,
    issuer: Issuer,
}

impl Fixture {
    /// With the server's certificate, its key, and the CA's certificate.
    fn new() -> Self {
        let fixture = Self { folder: TempDir::new().expect("a folder"), issuer: certificates::issuer("ours") };
        certificates::server(&fixture.issuer).write(fixture.folder.path(), "server");
        fs::write(fixture.path("ca.crt"), fixture.issuer.pem()).expect("a file");
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feast-registry"));
        command.args(["serve", "--port", "0", "--registry", "sqlite:///registry.db", "--log", "info"]);
        command.args(arguments).current_dir(self.folder.path()).env_remove("RUST_LOG").env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn start(&self, arguments: &[&str]) -> Server {
        Server::run(&mut self.command(arguments))
    }

    fn start_with_tls(&self, arguments: &[&str]) -> Server {
        self.start(&[&["--cert", "server.crt", "--key", "server.key"], arguments].concat())
    }

    /// What a start that fails says.
    fn error(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("it runs");
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).expect("text")
    }
}

/// A running server, whose log is read all the time; it is killed when this is dropped.
struct Server {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Server {
    fn run(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let log: Arc<Mutex<String>> = Arc::default();
        let written = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                written.lock().expect("a log").push_str(&(line + "\n"));
            }
        });
        let server = Self { child, log };
        server.says("serving ");
        server
    }

    fn log(&self) -> String {
        self.log.lock().expect("a log").clone()
    }

    /// The first line that has these words, once it is there.
    fn says(&self, words: &str) -> String {
        let until = Instant::now() + SOON;
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            assert!(Instant::now() < until, "it does not say `{words}`: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn port(&self, of: &str) -> u16 {
        self.says(of).rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    fn grpc(&self) -> u16 {
        self.port("serving ")
    }

    fn metrics(&self) -> u16 {
        self.port("metrics and health over ")
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill runs").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

type Client = RegistryServerClient<Channel>;

/// A client of gRPC that trusts an issuer, and shows a certificate if it has one.
async fn connect(port: u16, issuer: &Issuer, shows: Option<&Pair>) -> Result<Client, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(issuer.pem())).domain_name("localhost");
    if let Some(pair) = shows {
        tls = tls.identity(Identity::from_pem(&pair.certificate, &pair.key));
    }
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).expect("a URL");
    let channel = endpoint.tls_config(tls).expect("a configuration").connect().await?;
    Ok(RegistryServerClient::new(channel))
}

/// Whether a client can connect and is answered. With TLS 1.3 a server looks at the client's certificate last.
async fn is_answered(port: u16, issuer: &Issuer, shows: Option<&Pair>) -> bool {
    match connect(port, issuer, shows).await {
        Ok(mut client) => client.proto(()).await.is_ok(),
        Err(_) => false,
    }
}

/// An encrypted connection that speaks nothing yet.
async fn encrypt(port: u16, issuer: &Issuer, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    encrypt_as(port, issuer, protocols, None).await
}

/// The same of a client that shows a certificate if it has one.
async fn encrypt_as(
    port: u16,
    issuer: &Issuer,
    protocols: &[&str],
    shows: Option<&Pair>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).expect("an issuer");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match shows {
        None => config.with_no_client_auth(),
        Some(pair) => {
            let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("a certificate");
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
            config.with_client_auth_cert(vec![certificate], key).expect("a pair")
        }
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let connection = TcpStream::connect(("127.0.0.1", port)).await?;
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().expect("a name"), connection).await
}

async fn get(mut connection: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, path: &str) -> String {
    connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes()).await.expect("it is sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer that ends in order");
    answer
}

#[tokio::test]
async fn a_server_with_a_certificate_serves_grpc_and_metrics_with_tls() {
    let fixture = Fixture::new();
    let server = fixture.start_with_tls(&["--metrics-addr", "127.0.0.1:0"]);
    assert!(server.says("serving ").contains("registry.db with TLS and without authentication on 127.0.0.1:"));
    let mut client = connect(server.grpc(), &fixture.issuer, None).await.expect("a connection");
    client.proto(()).await.expect("an answer");

    let secured = encrypt(server.grpc(), &fixture.issuer, &["h2"]).await.expect("a handshake");
    assert_eq!(secured.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(secured.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));

    assert!(server.says("metrics and health").contains("over HTTPS on"));
    let secured = encrypt(server.metrics(), &fixture.issuer, &["http/1.1"]).await.expect("a handshake");
    assert!(get(secured, "/livez").await.starts_with("HTTP/1.1 200 OK"));
    let secured = encrypt(server.metrics(), &fixture.issuer, &[]).await.expect("a handshake without ALPN");
    let metrics = get(secured, "/metrics").await;
    // That of rcgen: the first day of the year 4096.
    assert!(
        metrics.contains("\nfeast_registry_tls_certificate_not_after_timestamp_seconds 67090118400\n"),
        "{metrics}"
    );
    assert!(!server.log().contains("WARN a client"), "{}", server.log());
}

#[tokio::test]
async fn who_trusts_another_ca_is_told_of_in_the_log() {
    let fixture = Fixture::new();
    let server = fixture.start_with_tls(&[]);
    assert!(!is_answered(server.grpc(), &certificates::issuer("other"), None).await);
    let line = server.says("does not accept the server's certificate (");
    assert!(line.contains("WARN") && line.contains("(UnknownCA)") && line.contains("peer=127.0.0.1"), "{line}");
    assert!(is_answered(server.grpc(), &fixture.issuer, None).await);
    // Some say nothing, and leave; who has said nothing before is no client.
    drop(TcpStream::connect(("127.0.0.1", server.grpc())).await.expect("a connection"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!server.log().contains("left in the middle"), "{}", server.log());
    let mut leaving = TcpStream::connect(("127.0.0.1", server.grpc())).await.expect("a connection");
    leaving.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.expect("it is sent");
    drop(leaving);
    server.says("it left in the middle of the TLS handshake");
    // Who speaks something else within TLS is told apart.
    encrypt(server.grpc(), &fixture.issuer, &["http/1.1"]).await.expect_err("no protocol in common");
    server.says("speaks TLS, but not HTTP/2, which gRPC needs");
}

#[tokio::test]
async fn who_does_not_encrypt_is_turned_away_and_told_of_in_the_log() {
    let fixture = Fixture::new();
    let server = fixture.start_with_tls(&["--metrics-addr", "127.0.0.1:0"]);
    let mut plain = TcpStream::connect(("127.0.0.1", server.grpc())).await.expect("a connection");
    plain.write_all(HELLO).await.expect("it is sent");
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.expect("it is closed in order");
    // Feast's client would try again for ever if it was told anything, and makes no other attempt if it is not.
    assert!(answer.is_empty(), "{answer:?}");
    server.says("it speaks HTTP/2 without TLS");

    let url = format!("http://127.0.0.1:{}", server.grpc());
    let connected = Endpoint::from_shared(url).expect("a URL").connect().await;
    let answered =
        async { RegistryServerClient::new(connected?).proto(()).await.map_err(Box::<dyn std::error::Error>::from) };
    answered.await.expect_err("it is not encrypted");

    let plain = TcpStream::connect(("127.0.0.1", server.metrics())).await.expect("a connection");
    let answer = get(plain, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.0 400 ") && answer.contains("ask with https://"), "{answer}");
    server.says("it speaks HTTP/1 without TLS");
}

#[tokio::test]
async fn who_encrypts_where_nobody_else_does_is_told_of_in_the_log() {
    let fixture = Fixture::new();
    let server = fixture.start(&["--metrics-addr", "127.0.0.1:0"]);
    assert!(server.says("serving ").contains("without TLS and without authentication on 127.0.0.1:"));
    for (port, says) in [
        (server.grpc(), "a client speaks TLS, and this server does not"),
        (server.metrics(), "health or metrics over TLS"),
    ] {
        let refused = tokio::time::timeout(SOON, encrypt(port, &fixture.issuer, &[])).await.expect("it ends soon");
        refused.expect_err("no TLS is spoken");
        assert!(server.says(says).contains("give"), "{says}");
    }
    let plain = TcpStream::connect(("127.0.0.1", server.metrics())).await.expect("a connection");
    assert!(get(plain, "/livez").await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn with_a_client_ca_a_certificate_of_it_is_required_but_not_for_metrics() {
    let fixture = Fixture::new();
    let server = fixture.start_with_tls(&["--client-ca", "ca.crt", "--metrics-addr", "127.0.0.1:0"]);
    assert!(
        server
            .says("serving ")
            .contains("with TLS, to clients with a certificate, and without authentication on 127.0.0.1:")
    );
    let port = server.grpc();
    let known = certificates::client(&fixture.issuer, "ann", "fleet");
    assert!(is_answered(port, &fixture.issuer, Some(&known)).await);

    assert!(!is_answered(port, &fixture.issuer, None).await);
    server.says("a client without a certificate was refused, since --client-ca asks for one");
    let unknown = certificates::client(&certificates::issuer("other"), "ann", "fleet");
    assert!(!is_answered(port, &fixture.issuer, Some(&unknown)).await);
    server.says("a client was refused for its certificate (");
    let expired = certificates::pair(&fixture.issuer, |params| params.not_after = date_time_ymd(2020, 1, 1));
    assert!(!is_answered(port, &fixture.issuer, Some(&expired)).await);
    // That of a server is not meant for clients.
    let of_server = certificates::server(&fixture.issuer);
    assert!(!is_answered(port, &fixture.issuer, Some(&of_server)).await);

    let secured = encrypt(server.metrics(), &fixture.issuer, &["http/1.1"]).await.expect("no certificate is asked for");
    assert!(get(secured, "/livez").await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn the_rest_api_asks_clients_for_the_same() {
    let fixture = Fixture::new();
    let server = fixture.start_with_tls(&["--client-ca", "ca.crt", "--rest-api", "--rest-port", "0", "--no-grpc"]);
    let port = server.port("REST API over HTTPS on ");
    let ask = "GET /version HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
    let known = certificates::client(&fixture.issuer, "ann", "fleet");
    for protocols in [&[][..], &["http/1.1"], &["h2", "http/1.1"]] {
        let mut secured = encrypt_as(port, &fixture.issuer, protocols, Some(&known)).await.expect("a handshake");
        let agreed = secured.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let expected = protocols.first().map(|first| first.as_bytes().to_vec());
        assert_eq!(agreed, expected, "what the client likes best");
        if protocols.first() != Some(&"h2") {
            secured.write_all(ask.as_bytes()).await.expect("it is sent");
            let mut answer = String::new();
            secured.read_to_string(&mut answer).await.expect("an answer that ends in order");
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("0.67"), "{answer}");
        }
    }
    // With TLS 1.3 a server looks at the client's certificate last.
    let refused = async {
        let mut secured = encrypt(port, &fixture.issuer, &["http/1.1"]).await?;
        secured.write_all(ask.as_bytes()).await?;
        secured.read_to_string(&mut String::new()).await
    };
    refused.await.expect_err("it shows no certificate");
    server.says("a client without a certificate was refused, since --client-ca asks for one");
    let mut plain = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    plain.write_all(ask.as_bytes()).await.expect("it is sent");
    let mut answer = String::new();
    drop(plain.read_to_string(&mut answer).await);
    assert!(!answer.contains("200 OK"), "{answer}");
}

/// A folder as Kubernetes mounts a secret: the files lead through a link that is replaced as a whole.
struct Mounted<'a>(&'a Fixture);

impl Mounted<'_> {
    fn put(&self, version: &str, pair: &Pair) {
        let folder = self.0.path(version);
        fs::create_dir(&folder).expect("a folder");
        let (certificate, key) = pair.write(&folder, "tls");
        // All have the same time, as files that were made within one tick of the clock.
        for path in [certificate, key] {
            fs::File::options()
                .write(true)
                .open(path)
                .and_then(|file| file.set_modified(std::time::UNIX_EPOCH))
                .expect("a time");
        }
        symlink(version, self.0.path("..data_tmp")).expect("a link");
        fs::rename(self.0.path("..data_tmp"), self.0.path("..data")).expect("it is replaced");
        for name in ["tls.crt", "tls.key"] {
            if !self.0.path(name).exists() {
                symlink(format!("..data/{name}"), self.0.path(name)).expect("a link");
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_renewed_is_shown_to_new_clients_and_disturbs_no_other() {
    let fixture = Fixture::new();
    let mounted = Mounted(&fixture);
    mounted.put("..1", &certificates::server(&fixture.issuer));
    let server = fixture.start(&["--cert", "tls.crt", "--key", "tls.key", "--metrics-addr", "127.0.0.1:0"]);
    let mut early = connect(server.grpc(), &fixture.issuer, None).await.expect("a connection");
    early.proto(()).await.expect("an answer");

    let renewing = certificates::issuer("next");
    let ends_2041 = |params: &mut CertificateParams| params.not_after = date_time_ymd(2041, 2, 3);
    mounted.put("..2", &certificates::pair(&renewing, ends_2041));
    let line = server.says("was read anew from tls.crt; it ends 2041-02-03T00:00:00Z");
    assert!(line.contains("INFO"), "{line}");
    assert!(is_answered(server.grpc(), &renewing, None).await);
    assert!(!is_answered(server.grpc(), &fixture.issuer, None).await, "new connections are shown the new certificate");
    // It does not trust the new one: it is on the connection of before.
    early.proto(()).await.expect("an answer");
    let metrics =
        || async { get(encrypt(server.metrics(), &renewing, &[]).await.expect("a handshake"), "/metrics").await };
    let until = Instant::now() + SOON;
    while !metrics().await.contains("not_after_timestamp_seconds 2243462400\n") {
        assert!(Instant::now() < until, "{}", metrics().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // A pair that does not match leaves it at that, and is told of once.
    let (one, other) = (certificates::server(&renewing), certificates::server(&renewing));
    mounted.put("..3", &Pair { certificate: one.certificate, key: other.key });
    let line =
        server.says("cannot be used; the server goes on with the certificate from before, which ends 2041-02-03");
    assert!(line.contains("ERROR") && line.contains("tls.key is not that of the certificate in tls.crt"), "{line}");
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(server.log().matches("cannot be used").count(), 1, "{}", server.log());
    assert!(is_answered(server.grpc(), &renewing, None).await);
    early.proto(()).await.expect("an answer");
}

#[tokio::test]
async fn files_that_are_written_one_after_the_other_are_waited_for() {
    let fixture = Fixture::new();
    let server = fixture.start_with_tls(&[]);
    let renewing = certificates::issuer("next");
    let pair = certificates::server(&renewing);
    // Also where a file is empty for a moment.
    let mut unfinished = String::new();
    for part in pair.certificate.split_inclusive('\n') {
        unfinished += part;
        fs::write(fixture.path("server.crt"), &unfinished).expect("a file");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fs::write(fixture.path("server.key"), &pair.key).expect("a file");
    server.says("was read anew from server.crt");
    assert!(!server.log().contains("ERROR"), "{}", server.log());
    assert!(is_answered(server.grpc(), &renewing, None).await);
}

#[tokio::test]
async fn sighup_has_the_files_read_at_once_and_ends_nothing() {
    let fixture = Fixture::new();
    let mut server = fixture.start_with_tls(&["--client-ca", "ca.crt"]);
    let known = certificates::client(&fixture.issuer, "ann", "fleet");
    let mut early = connect(server.grpc(), &fixture.issuer, Some(&known)).await.expect("a connection");
    early.proto(()).await.expect("an answer");

    let clients = certificates::issuer("clients");
    fs::write(fixture.path("ca.crt"), clients.pem()).expect("a file");
    let began = Instant::now();
    server.signal("-HUP");
    server.says("was read anew from server.crt");
    let took = began.elapsed();
    assert!(took < Duration::from_millis(2500), "it waited until it looked by itself: {took:?}");
    let next = certificates::client(&clients, "bob", "fleet");
    assert!(is_answered(server.grpc(), &fixture.issuer, Some(&next)).await);
    assert!(!is_answered(server.grpc(), &fixture.issuer, Some(&known)).await);
    early.proto(()).await.expect("an answer");

    fs::write(fixture.path("server.key"), "nothing").expect("a file");
    server.signal("-HUP");
    let line = server.says("cannot be used");
    assert!(line.contains("--key: there is no PEM private key in server.key"), "{line}");
    assert!(is_answered(server.grpc(), &fixture.issuer, Some(&next)).await);
    assert!(server.child.try_wait().expect("it is a child").is_none(), "it has ended");
}

#[test]
fn sighup_ends_nothing_where_there_is_nothing_to_read() {
    let fixture = Fixture::new();
    let mut server = fixture.start(&[]);
    server.signal("-HUP");
    server.says("SIGHUP: there is nothing to read anew");
    assert!(server.child.try_wait().expect("it is a child").is_none(), "it has ended");
    server.signal("-TERM");
    assert_eq!(server.child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_certificate_that_ends_soon_is_warned_of() {
    let day = 86_400;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs() as i64;
    let at = |days: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((now + days * day) as u64);
    for (begins, ends, says) in [
        (-80, 10, Some("in less than 10 days")),
        (-90, -1, Some("has expired")),
        (-10, 80, None),
        // It lives for ten days, and is renewed in time.
        (-5, 5, None),
        (-9, 1, Some("in less than 1 days")),
    ] {
        let fixture = Fixture::new();
        let change = |params: &mut CertificateParams| (params.not_before, params.not_after) = (at(begins), at(ends));
        certificates::pair(&fixture.issuer, change).write(fixture.folder.path(), "server");
        let server = fixture.start_with_tls(&[]);
        match says {
            Some(says) => {
                let line = server.says("the TLS certificate in server.crt");
                assert!(line.contains("WARN") && line.contains(says), "{line}");
                std::thread::sleep(Duration::from_secs(4));
                assert_eq!(server.log().matches("the TLS certificate in").count(), 1, "{}", server.log());
            }
            None => {
                std::thread::sleep(Duration::from_secs(1));
                assert!(!server.log().contains("the TLS certificate in"), "{}", server.log());
            }
        }
    }
}

#[test]
fn a_start_with_files_that_cannot_be_used_fails_and_makes_nothing() {
    let fixture = Fixture::new();
    certificates::server(&fixture.issuer).write(fixture.folder.path(), "other");
    let error = fixture.error(&["--cert", "server.crt", "--key", "other.key"]);
    assert!(
        error.starts_with("error: --key: the private key in other.key is not that of the certificate in server.crt")
    );
    let error = fixture.error(&["--cert", "server.key", "--key", "server.crt"]);
    assert!(error.contains("--cert: there is no PEM certificate in server.key: it holds a private key"), "{error}");
    for (arguments, needs) in [
        (&["--cert", "server.crt"][..], "--key <FILE>"),
        (&["--key", "server.key"], "--cert <FILE>"),
        (&["--client-ca", "ca.crt"], "--cert <FILE>"),
        (&["--cert", "server.crt", "--key", "server.key", "--client-cert-identity"], "--client-ca <FILE>"),
    ] {
        let error = fixture.error(arguments);
        assert!(error.contains("required arguments") && error.contains(needs), "{error}");
    }
    assert!(!fixture.path("registry.db").exists());
}

#[test]
fn a_server_that_others_reach_without_tls_says_so() {
    let fixture = Fixture::new();
    let warns = |server: &Server| server.log().contains("are not encrypted");
    let server = fixture.start(&["--host", "0.0.0.0"]);
    let line = server.says("are not encrypted");
    assert!(line.contains("WARN") && line.contains("--cert and --key"), "{line}");
    assert!(!warns(&fixture.start(&["--host", "::1"])));
    assert!(!warns(&fixture.start_with_tls(&["--host", "0.0.0.0"])));
}

/// The library alone: whoever embeds a server has no options of a command line.
#[tokio::test]
async fn an_embedded_server_has_tls() {
    use feast_registry_core::{MemoryBackend, Registry, RegistryOptions};
    use feast_registry_server::{Monitoring, ServeOptions, Tls, TlsFiles, listen, serve};

    let fixture = Fixture::new();
    let tls = Tls::open(TlsFiles::new(fixture.path("server.crt"), fixture.path("server.key"))).expect("a pair");
    let registry =
        Registry::open(Arc::new(MemoryBackend::new()), RegistryOptions::default()).await.expect("a registry");
    let listener = || listen(([127, 0, 0, 1], 0).into()).expect("a port");
    let (grpc, http) = (listener(), listener());
    let ports = [&grpc, &http].map(|listener| listener.local_addr().expect("an address").port());
    let monitoring = Monitoring::new(None).with_tls(tls.clone());
    tokio::spawn(monitoring.clone().serve(http));
    let mut options = ServeOptions::default();
    (options.tls, options.monitoring) = (Some(tls.clone()), Some(monitoring));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve(registry, grpc, options, async { drop(stopped.await) }));
    assert!(is_answered(ports[0], &fixture.issuer, None).await);
    let secured = encrypt(ports[1], &fixture.issuer, &[]).await.expect("a handshake");
    assert!(get(secured, "/livez").await.starts_with("HTTP/1.1 200 OK"));
    stop.send(()).expect("it runs");
    serving.await.expect("no panic").expect("it ends in order");
}
