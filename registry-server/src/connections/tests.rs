use std::convert::Infallible;
use std::sync::Mutex;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::codegen::BoxFuture;

use super::*;
use crate::tls::TlsFiles;
use crate::tls::tests::certificates::{self, Issuer, Pair};

/// HTTP/2's preface and empty settings.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The code of the setting MAX_CONCURRENT_STREAMS.
const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];
const SOON: Duration = Duration::from_secs(5);

fn limits() -> ConnectionLimits {
    ConnectionLimits {
        connections: 100,
        age: None,
        keep_alive: None,
        grace: Duration::from_secs(60),
        greeting: Duration::from_secs(60),
    }
}

/// In place of the services: it refuses a call when its request has come whole.
#[derive(Clone)]
struct Refusing;

impl Service<http::Request<Incoming>> for Refusing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        Box::pin(async move {
            let mut body = request.into_body();
            let mut body = Pin::new(&mut body);
            let mut is_open = true;
            while is_open {
                let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await;
                is_open = frame.is_some_and(|frame| frame.is_ok());
            }
            Ok(Status::aborted("refused").into_http())
        })
    }
}

/// A server, how many connections it has taken, and what stops it.
struct Running {
    address: std::net::SocketAddr,
    taken: Arc<Mutex<Vec<Arc<Activity>>>>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<usize>,
}

async fn run(limits: ConnectionLimits) -> Running {
    run_with(limits, None).await
}

async fn run_with(limits: ConnectionLimits, tls: Option<Tls>) -> Running {
    run_speaking(Speaks::Http2, limits, tls).await
}

async fn run_speaking(speaks: Speaks, limits: ConnectionLimits, tls: Option<Tls>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let taken: Arc<Mutex<Vec<Arc<Activity>>>> = Arc::default();
    let (stop, has_stopped) = oneshot::channel();
    let activities = Arc::clone(&taken);
    let serving = tokio::spawn(async move {
        let service = |activity| {
            activities.lock().expect("a list").push(activity);
            Refusing
        };
        let permits = Port::permits(limits.connections);
        let port = Port { listener: listener.into(), speaks, tls, permits };
        serve(port, limits, service, async { drop(has_stopped.await) }).await
    });
    Running { address, taken, stop, serving }
}

impl Running {
    async fn connect(&self, says: &[u8]) -> TcpStream {
        let mut connection = TcpStream::connect(self.address).await.expect("a connection");
        connection.write_all(says).await.expect("it is sent");
        connection
    }

    fn taken(&self) -> usize {
        self.taken.lock().expect("a list").len()
    }
}

/// What a server sends until it closes a connection, which it must do soon.
async fn until_closed(mut connection: TcpStream) -> Vec<u8> {
    let mut sent = Vec::new();
    let read = timeout(SOON, connection.read_to_end(&mut sent)).await.expect("it is closed soon");
    // It may be reset, if something that was sent was never read.
    drop(read);
    sent
}

#[tokio::test]
async fn who_says_nothing_or_half_a_preface_is_not_kept() {
    let running = run(ConnectionLimits { greeting: Duration::from_millis(200), ..limits() }).await;
    let mut friendly = running.connect(HELLO).await;
    for says in [&b""[..], &HELLO[..10], &HELLO[..GREETING - 1]] {
        until_closed(running.connect(says).await).await;
    }
    let mut sent = [0; 9];
    friendly.read_exact(&mut sent).await.expect("settings");
    let mut one = [0];
    let more =
        timeout(Duration::from_millis(300), async { while friendly.read(&mut one).await.expect("it is open") > 0 {} });
    assert!(more.await.is_err(), "a client that speaks HTTP/2 may be silent for as long as it likes");
}

#[tokio::test]
async fn a_connection_of_http_1_without_requests_is_not_kept() {
    const REQUEST: &[u8] = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n";
    let keep = Duration::from_millis(500);
    let limits = ConnectionLimits { keep_alive: Some(keep), greeting: Duration::from_millis(100), ..limits() };
    let running = run_speaking(Speaks::Either, limits, None).await;
    let began = Instant::now();
    // One that has asked and been answered, one that asks half, and one that says nothing.
    let (asked, half, silent) =
        (running.connect(REQUEST).await, running.connect(&REQUEST[..30]).await, running.connect(b"").await);
    assert_eq!(until_closed(silent).await, b"");
    assert!(began.elapsed() < keep, "{:?}", began.elapsed());
    assert!(until_closed(asked).await.starts_with(b"HTTP/1.1 "), "it is answered");
    assert!(began.elapsed() >= keep, "it is kept for a while: {:?}", began.elapsed());
    until_closed(half).await;
    // Who goes on asking is kept.
    let mut busy = running.connect(REQUEST).await;
    for _ in 0..4 {
        sleep(keep / 2).await;
        busy.write_all(REQUEST).await.expect("it is open");
    }
    assert_eq!(String::from_utf8_lossy(&until_closed(busy).await).matches("HTTP/1.1 ").count(), 5);
}

#[tokio::test]
async fn a_connection_has_a_limit_of_streams() {
    let running = run(limits()).await;
    let mut connection = running.connect(HELLO).await;
    let mut head = [0; 9];
    connection.read_exact(&mut head).await.expect("a frame");
    assert_eq!(head[3], 4, "settings come first");
    let mut settings = vec![0; usize::from(head[2])];
    connection.read_exact(&mut settings).await.expect("settings");
    let limit = settings.chunks(6).find(|setting| setting[..2] == MAX_CONCURRENT_STREAMS).expect("the setting");
    assert_eq!(limit[2..], MAX_STREAMS.to_be_bytes());
}

#[tokio::test]
async fn more_connections_than_there_may_be_are_closed_at_once() {
    let running = run(ConnectionLimits { connections: 2, ..limits() }).await;
    let first = running.connect(HELLO).await;
    let _second = running.connect(HELLO).await;
    while running.taken() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(until_closed(running.connect(HELLO).await).await.is_empty());
    drop(first);
    timeout(SOON, async {
        while running.taken() < 3 {
            drop(running.connect(HELLO).await);
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("there is room again");
}

#[tokio::test]
async fn a_connection_ends_when_it_is_old() {
    let running = run(ConnectionLimits { age: Some(Duration::from_millis(300)), ..limits() }).await;
    let mut connection = running.connect(HELLO).await;
    let went_away = async {
        let mut sent = Vec::new();
        // The last frame of a type that is read here: a stream that may still be opened was announced before.
        while !sent.windows(4).any(|window| window[3] == 7) {
            let mut some = [0; 1024];
            let length = connection.read(&mut some).await.expect("it is open");
            assert_ne!(length, 0, "it says so before it ends");
            sent.extend_from_slice(&some[..length]);
        }
    };
    timeout(SOON, went_away).await.expect("it is told to go");
}

/// Fault: any of them had SIGTERM wait for half a minute.
#[tokio::test]
async fn who_has_no_call_under_way_does_not_keep_the_server_from_stopping() {
    let running = run(limits()).await;
    // Headers of a request whose body never comes.
    let half_open = {
        let headers = b"\x83\x86\x84\x41\x01x";
        let mut says = HELLO.to_vec();
        says.extend_from_slice(&[0, 0, headers.len() as u8, 1, 4, 0, 0, 0, 1]);
        says.extend_from_slice(headers);
        says
    };
    let _connections = [
        running.connect(b"").await,
        running.connect(&HELLO[..10]).await,
        running.connect(HELLO).await,
        running.connect(&half_open).await,
    ];
    while running.taken() < 4 {
        tokio::task::yield_now().await;
    }
    let call = running.taken.lock().expect("a list")[2].begin_call();
    sleep(Duration::from_millis(100)).await;
    running.stop.send(()).expect("it runs");
    let serving = running.serving;
    sleep(3 * LINGERS_FOR).await;
    assert!(!serving.is_finished(), "a call is under way");
    drop(call);
    let unfinished = timeout(SOON, serving).await.expect("it ends").expect("no panic");
    assert_eq!(unfinished, 0);
}

#[tokio::test]
async fn calls_that_take_longer_than_the_time_of_grace_are_cut() {
    let running = run(ConnectionLimits { grace: Duration::from_millis(200), ..limits() }).await;
    let _connection = running.connect(HELLO).await;
    while running.taken() < 1 {
        tokio::task::yield_now().await;
    }
    let _call = running.taken.lock().expect("a list")[0].begin_call();
    running.stop.send(()).expect("it runs");
    assert_eq!(timeout(SOON, running.serving).await.expect("it ends").expect("no panic"), 1);
}

/// Fault: answers of a few bytes that their client never read were kept as long as its connection lived.
#[tokio::test(start_paused = true)]
async fn who_reads_nothing_of_its_answers_is_noticed_and_who_reads_slowly_is_not() {
    let activity = Activity::new(Peer::Address([127, 0, 0, 1].into()));
    let began = Instant::now();
    let slow = activity.begin_answer();
    let reading = async {
        for _ in 0..20 {
            sleep(READ_WITHIN / 2).await;
            slow.goes_on();
        }
    };
    tokio::select! {
        () = reading => {}
        () = activity.is_unread() => panic!("it was read"),
    }
    drop(slow);
    // Without an answer there is nothing to read.
    assert!(timeout(READ_WITHIN * 10, activity.is_unread()).await.is_err());
    let (of_unread, another) = (activity.begin_call(), activity.begin_call());
    let _unread = (of_unread, activity.begin_answer(), activity.begin_conversation());
    // Another client behind the same proxy waits for what it has asked for.
    assert!(timeout(READ_WITHIN * 10, activity.is_unread()).await.is_err());
    drop(another);
    let since = began.elapsed();
    activity.is_unread().await;
    assert!(began.elapsed() - since <= READ_WITHIN * 2);
}

/// A server with TLS, and who has signed its certificate.
struct Encrypted {
    _folder: tempfile::TempDir,
    issuer: Issuer,
    tls: Tls,
}

fn encrypted(change: impl FnOnce(TlsFiles) -> TlsFiles) -> Encrypted {
    let folder = tempfile::TempDir::new().expect("a folder");
    let issuer = certificates::issuer("ours");
    let (certificate, key) = certificates::server(&issuer).write(folder.path(), "server");
    std::fs::write(folder.path().join("ca.crt"), issuer.pem()).expect("a file");
    let files = change(TlsFiles::new(certificate, key).with_client_ca(folder.path().join("ca.crt")));
    Encrypted { tls: Tls::open(files).expect("certificates"), _folder: folder, issuer }
}

/// A client who trusts an issuer and shows a certificate.
async fn secured(running: &Running, issuer: &Issuer, shows: &Pair) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(issuer.der().clone()).expect("an issuer");
    let chain = CertificateDer::pem_slice_iter(shows.certificate.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(shows.key.as_bytes()).expect("a key");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.expect("a certificate"), key)
        .expect("a pair");
    let connection = TcpStream::connect(running.address).await.expect("a connection");
    let name = "localhost".try_into().expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, connection).await.expect("a handshake")
}

#[tokio::test]
async fn a_certificate_that_was_verified_says_who_a_client_is_if_it_is_to() {
    for (is_to, identity) in [(true, Some(Identity::new("ann").with_groups(["fleet"]))), (false, None)] {
        let encrypted = encrypted(|files| if is_to { files.with_identities() } else { files });
        let running = run_with(limits(), Some(encrypted.tls.clone())).await;
        let nameless = certificates::pair(&encrypted.issuer, |_| {});
        for (shows, identity) in [(certificates::client(&encrypted.issuer, "ann", "fleet"), identity), (nameless, None)]
        {
            let mut client = secured(&running, &encrypted.issuer, &shows).await;
            client.write_all(HELLO).await.expect("it is sent");
            let mut settings = [0; 9];
            client.read_exact(&mut settings).await.expect("settings");
            let activity = running.taken.lock().expect("a list").pop().expect("a connection");
            assert_eq!(activity.certificate().map(|identity| (**identity).clone()), identity);
        }
    }
}

/// The head of a record that announces more than comes.
const HALF_A_RECORD: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

#[tokio::test]
async fn who_does_not_end_a_handshake_keeps_nobody_out_and_is_not_kept() {
    let encrypted = encrypted(|files| files);
    let greeting = Duration::from_secs(1);
    let running = run_with(ConnectionLimits { greeting, ..limits() }, Some(encrypted.tls.clone())).await;
    let began = Instant::now();
    let mut slow = Vec::new();
    for says in [&b""[..], &HALF_A_RECORD[..1], HALF_A_RECORD].repeat(20) {
        slow.push(running.connect(says).await);
    }
    let shows = certificates::client(&encrypted.issuer, "ann", "fleet");
    // Whoever is done with the handshake still has to say something.
    let mut silent = secured(&running, &encrypted.issuer, &shows).await;
    let mut friendly = secured(&running, &encrypted.issuer, &shows).await;
    friendly.write_all(HELLO).await.expect("it is sent");
    let mut settings = [0; 9];
    friendly.read_exact(&mut settings).await.expect("settings");
    assert!(began.elapsed() < greeting, "it waited for the others: {:?}", began.elapsed());
    for connection in slow {
        assert!(until_closed(connection).await.is_empty());
    }
    let mut sent = Vec::new();
    drop(timeout(SOON, silent.read_to_end(&mut sent)).await.expect("it is closed soon"));
    // One byte now and then does not give it more time.
    let mut dripping = running.connect(HALF_A_RECORD).await;
    let drips = async {
        loop {
            sleep(Duration::from_millis(100)).await;
            if dripping.write_all(&[0]).await.is_err() || matches!(dripping.try_read(&mut [0; 64]), Ok(0)) {
                break;
            }
        }
    };
    timeout(SOON, drips).await.expect("it is closed soon");
    let mut one = [0];
    let more = async { while friendly.read(&mut one).await.expect("it is open") > 0 {} };
    assert!(timeout(Duration::from_millis(300), more).await.is_err(), "it is open");
}

#[tokio::test]
async fn a_handshake_does_not_keep_the_server_from_stopping() {
    let encrypted = encrypted(|files| files);
    let running = run_with(limits(), Some(encrypted.tls.clone())).await;
    let _connections = [running.connect(b"").await, running.connect(HALF_A_RECORD).await];
    while running.taken() < 2 {
        tokio::task::yield_now().await;
    }
    running.stop.send(()).expect("it runs");
    assert_eq!(timeout(SOON, running.serving).await.expect("it ends").expect("no panic"), 0);
}
