//! What requests may take, whoever sends them: compressed ones, large ones, and those that are never sent to their end.

#![cfg(target_os = "linux")]

mod common;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use common::Server;
use feast_registry::{MemoryBackend, Registry, RegistryOptions};
use feast_registry_core::Encoded;
use feast_registry_core::proto::core::{Entity, EntitySpecV2};
use feast_registry_server::proto::registry_server_client::RegistryServerClient;
use feast_registry_server::proto::{ApplyEntityRequest, GetEntityRequest, ListEntitiesRequest};
use feast_registry_server::{ServeOptions, serve};
use http_body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::codegen::{Bytes, http};
use tonic::transport::{Channel, Endpoint};

const MEGABYTE: usize = 1 << 20;
const PATH: &str = "/feast.registry.RegistryServer/ApplyEntity";

async fn served(options: ServeOptions) -> String {
    let backend = std::sync::Arc::new(MemoryBackend::new());
    let registry = Registry::open(backend, RegistryOptions::default()).await.expect("a registry");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(serve(registry, listener, options, std::future::pending()));
    address.to_string()
}

async fn client(address: &str) -> RegistryServerClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    RegistryServerClient::new(endpoint.connect().await.expect("a connection"))
}

fn apply(name: &str, description: String) -> ApplyEntityRequest {
    let spec = EntitySpecV2 { name: name.to_owned(), description, ..Default::default() };
    let entity = Encoded::new(&Entity { spec: Some(spec), meta: None });
    ApplyEntityRequest { project: "p".to_owned(), entity: Some(entity), commit: true }
}

/// Fault: clients that compress were answered UNIMPLEMENTED.
#[tokio::test]
async fn compressed_requests_are_taken_and_bounded_as_they_unpack() {
    let mut options = ServeOptions::default();
    options.max_message_size = 4 * MEGABYTE;
    let address = served(options).await;
    for (name, encoding) in [
        ("gzip", CompressionEncoding::Gzip),
        ("deflate", CompressionEncoding::Deflate),
        ("zstd", CompressionEncoding::Zstd),
    ] {
        let mut client = client(&address).await.send_compressed(encoding);
        let description = "long and dull ".repeat(10_000);
        client.apply_entity(apply(name, description.clone())).await.expect("an apply");
        let get = GetEntityRequest { project: "p".to_owned(), name: name.to_owned(), allow_cache: true };
        let stored = client.get_entity(get).await.expect("an entity").into_inner();
        let stored = Entity::decode(stored.into_bytes()).expect("it is one");
        assert_eq!(stored.spec.expect("a spec").description, description);
        // A few kilobytes that become eight megabytes.
        let status = client.apply_entity(apply("bomb", " ".repeat(8 * MEGABYTE))).await.expect_err("it is too large");
        assert_eq!(status.code(), Code::ResourceExhausted, "{name}: {status:?}");
    }
}

/// A request of which this is sent, and never its end.
struct Unfinished(VecDeque<Bytes>);

impl Unfinished {
    /// So many megabytes, of one more that it says will come.
    fn of(megabytes: usize) -> Self {
        let mut this = Self::announcing(megabytes + 1);
        this.0.extend(std::iter::repeat_n(Bytes::from(vec![7; MEGABYTE]), megabytes));
        this
    }

    /// It says that so many will come, and sends none.
    fn announcing(megabytes: usize) -> Self {
        let length = u32::try_from(megabytes * MEGABYTE).expect("a length");
        Self([Bytes::from([&[0][..], &length.to_be_bytes()].concat())].into())
    }
}

impl Body for Unfinished {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Poll::Pending,
        }
    }
}

/// A message as it is sent.
fn message(is_compressed: bool, bytes: &[u8]) -> Bytes {
    let length = u32::try_from(bytes.len()).expect("a length").to_be_bytes();
    [&[u8::from(is_compressed)][..], &length, bytes].concat().into()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).expect("it is compressed");
    encoder.finish().expect("it is compressed")
}

/// What does not become shorter by being compressed.
fn noise(length: usize) -> String {
    (0..length).map(|_| char::from(fastrand::u8(b' '..b'~'))).collect()
}

/// A connection whose client takes so many bytes of an answer.
async fn connect<B>(address: &str, window: u32) -> http2::SendRequest<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connection = TcpStream::connect(address).await.expect("a connection");
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, driver) = builder.handshake(TokioIo::new(connection)).await.expect("HTTP/2");
    tokio::spawn(driver);
    sender
}

fn request<B>(address: &str, body: B) -> http::Request<B> {
    request_to(address, PATH, body)
}

fn request_to<B>(address: &str, path: &str, body: B) -> http::Request<B> {
    let request = http::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    request.body(body).expect("a request")
}

/// Sends a request on a connection of its own; the gRPC code of its answer.
async fn send(address: &str, body: Unfinished) -> Option<String> {
    let answer = connect(address, 65_535).await.send_request(request(address, body)).await.ok()?;
    let code = answer.headers().get("grpc-status")?;
    Some(code.to_str().expect("a code").to_owned())
}

/// Fault: a request that was never sent to its end was waited for as long as its connection lived.
#[tokio::test]
async fn a_request_must_come_whole_in_time() {
    let mut options = ServeOptions::default();
    options.request_timeout = Duration::from_millis(300);
    let address = served(options).await;
    let began = Instant::now();
    assert_eq!(send(&address, Unfinished::of(0)).await.as_deref(), Some("4"), "DEADLINE_EXCEEDED");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// Fault: sixteen such requests of 127 MB took 4 GB.
#[tokio::test]
async fn unfinished_requests_share_their_memory_and_hold_up_no_small_ones() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let server = Server::start(&format!("sqlite:///{}", folder.path().join("registry.db").display()));
    let before = server.peak();
    let mut large = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let address = server.address.clone();
        large.spawn(async move { send(&address, Unfinished::of(60)).await });
    }
    let mut client = server.client().await;
    let until = Instant::now() + Duration::from_secs(4);
    let mut applied = 0;
    while Instant::now() < until {
        client.apply_entity(apply("small", format!("version {applied}"))).await.expect("an apply");
        applied += 1;
    }
    // Those that are held up are done after the large ones; a busy machine does a few in this time.
    assert!(applied > 5, "only {applied} applies in 4 s");
    let took = server.peak() - before;
    // Four of them have room, each received into a buffer that grows; the others were refused.
    assert!(took > 60 * MEGABYTE && took < 600 * MEGABYTE, "{} MB", took / MEGABYTE);
    let mut refused = 0;
    while let Ok(Some(answered)) = tokio::time::timeout(Duration::from_millis(10), large.join_next()).await {
        assert_eq!(answered.expect("no panic").as_deref(), Some("8"), "RESOURCE_EXHAUSTED");
        refused += 1;
    }
    assert!((3..8).contains(&refused), "{refused} were refused");
}

/// Fault: five bytes that announced a large request held up all others of more than 64 KiB for half a minute.
#[tokio::test]
async fn what_is_announced_takes_no_room_before_it_comes() {
    let address = served(ServeOptions::default()).await;
    let mut announced = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let address = address.clone();
        announced.spawn(async move { send(&address, Unfinished::announcing(127)).await });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut client = client(&address).await;
    let began = Instant::now();
    for number in 0..20 {
        client.apply_entity(apply("large", format!("{number}").repeat(200_000))).await.expect("an apply");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(announced.try_join_next().is_none(), "they are still waited for");
}

/// Fault: a request had its room until its client had read the answer, so one client who read nothing held up all others.
#[tokio::test]
async fn a_request_has_room_until_it_is_done_and_not_until_its_answer_is_read() {
    let address = served(ServeOptions::default()).await;
    // What may unpack to all that there may be.
    let incompressible = noise(400_000);
    let body = message(true, &gzipped(&apply("unread", incompressible.clone()).encode_to_vec()));
    let mut unread = Vec::new();
    for _ in 0..4 {
        let mut sender = connect(&address, 0).await;
        let mut request = request(&address, http_body_util::Full::new(body.clone()));
        request.headers_mut().insert("grpc-encoding", http::HeaderValue::from_static("gzip"));
        let answer = tokio::time::timeout(Duration::from_secs(10), sender.send_request(request)).await;
        unread.push((answer.expect("its head comes").expect("an answer"), sender));
    }
    let mut client = client(&address).await.send_compressed(CompressionEncoding::Gzip);
    let apply = client.apply_entity(apply("other", incompressible));
    tokio::time::timeout(Duration::from_secs(10), apply).await.expect("it waits for nobody").expect("an apply");
}

/// Fault: a message that had come whole was done, though its client broke the call off instead of ending it.
#[tokio::test]
async fn a_request_that_is_broken_off_is_not_done() {
    let address = served(ServeOptions::default()).await;
    let sender = connect(&address, 65_535).await;
    for number in 0..100 {
        let whole = message(false, &apply(&format!("broken off {number}"), String::new()).encode_to_vec());
        let sent = sender.clone().send_request(request(&address, Unfinished([whole].into())));
        let answer = tokio::time::timeout(Duration::from_millis(number % 10), sent).await;
        assert!(answer.is_err(), "it is not answered before its end");
    }
    let mut client = client(&address).await;
    client.apply_entity(apply("whole", String::new())).await.expect("an apply");
    let list = ListEntitiesRequest { project: "p".to_owned(), ..Default::default() };
    let list = client.list_entities(list).await.expect("a list").into_inner();
    assert_eq!(list.entities.len(), 1, "nothing else was done");
}

/// Fault: what came after the first message was unpacked, of any size, and kept until the stream ended.
#[tokio::test]
async fn a_call_is_one_message() {
    let address = served(ServeOptions::default()).await;
    let one = message(false, &apply("one", String::new()).encode_to_vec());
    let two = http_body_util::Full::new(Bytes::from([&one[..], &one[..]].concat()));
    let answer = connect(&address, 65_535).await.send_request(request(&address, two)).await.expect("an answer");
    assert_eq!(answer.headers()["grpc-status"], "13", "INTERNAL: {:?}", answer.headers());
    assert!(answer.headers()["grpc-message"].to_str().expect("text").contains("more%20than%20one"));
}

/// Fault: 46 KB took 1.4 GB: what zstd unpacks to was taken for a thousandth of what it is.
#[tokio::test]
async fn what_requests_unpack_to_is_bounded() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let server = Server::start(&format!("sqlite:///{}", folder.path().join("registry.db").display()));
    let before = server.peak();
    let bomb = message(true, &zstd::encode_all(&*vec![0; 120 * MEGABYTE], 3).expect("it is compressed"));
    assert!(bomb.len() < MEGABYTE / 8);
    let mut sent = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (address, bomb) = (server.address.clone(), bomb.clone());
        sent.spawn(async move {
            let mut sender = connect(&address, 65_535).await;
            let compressed = |mut request: http::Request<_>| {
                request.headers_mut().insert("grpc-encoding", http::HeaderValue::from_static("zstd"));
                request
            };
            let body = match number % 2 {
                0 => http_body_util::Either::Left(Unfinished([bomb].into())),
                _ => http_body_util::Either::Right(http_body_util::Full::new(bomb)),
            };
            let answer = sender.send_request(compressed(request(&address, body)));
            tokio::time::timeout(Duration::from_secs(20), answer).await.ok()
        });
    }
    let mut answered = 0;
    while let Some(answer) = sent.join_next().await {
        answered += usize::from(answer.expect("no panic").is_some());
    }
    assert_eq!(answered, 8, "those that were sent to their end");
    let took = (server.peak() - before) / MEGABYTE;
    // Two of them have room, and as much again while they are read; the others were refused.
    assert!((100..700).contains(&took), "{took} MB");
}

/// Fault: five bytes reserved 128 MB of the process's address space, of which there may be a limit.
#[tokio::test]
async fn what_is_announced_reserves_nothing() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let server = Server::start(&format!("sqlite:///{}", folder.path().join("registry.db").display()));
    let sender = connect(&server.address, 65_535).await;
    let mut announced = tokio::task::JoinSet::new();
    let before = server.address_space();
    for _ in 0..100 {
        let (mut sender, address) = (sender.clone(), server.address.clone());
        announced.spawn(async move { drop(sender.send_request(request(&address, Unfinished::announcing(127))).await) });
    }
    server.client().await.apply_entity(apply("small", String::new())).await.expect("an apply");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let took = server.address_space().saturating_sub(before) / MEGABYTE;
    assert!(took < 2000, "{took} MB");
}

/// Fault: one message of a client that never ended its request held up all that were compressed, for half a minute.
#[tokio::test]
async fn who_never_ends_a_compressed_request_holds_up_nobody() {
    let address = served(ServeOptions::default()).await;
    let whole = message(true, &gzipped(&apply("unended", noise(400_000)).encode_to_vec()));
    let mut sender = connect(&address, 65_535).await;
    let mut unended = request(&address, Unfinished([whole].into()));
    unended.headers_mut().insert("grpc-encoding", http::HeaderValue::from_static("gzip"));
    let unended = tokio::spawn(async move { sender.send_request(unended).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut client = client(&address).await.send_compressed(CompressionEncoding::Gzip);
    let apply = client.apply_entity(apply("other", noise(400_000)));
    tokio::time::timeout(Duration::from_secs(10), apply).await.expect("it waits for nobody").expect("an apply");
    assert!(!unended.is_finished(), "it is still waited for");
}

/// Fault: one stream of server reflection took all the memory that there is for large requests, and kept it.
#[tokio::test]
async fn conversations_and_requests_for_health_are_small() {
    let address = served(ServeOptions::default()).await;
    // Reflection ends such a stream without saying why.
    for (path, size, code) in [
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", 100_000, "0"),
        ("/grpc.health.v1.Health/Check", 2_000, "8"),
    ] {
        let mut sender = connect(&address, 65_535).await;
        let large = Unfinished([message(false, &vec![7; size])].into());
        let answer = sender.send_request(request_to(&address, path, large)).await.expect("an answer");
        let at_once = answer.headers().get("grpc-status").cloned();
        let answer =
            tokio::time::timeout(Duration::from_secs(10), http_body_util::BodyExt::collect(answer.into_body()));
        let answer = answer.await.expect("it ends, though its request does not").expect("an end");
        let at_the_end = answer.trailers().and_then(|trailers| trailers.get("grpc-status").cloned());
        assert_eq!(at_once.or(at_the_end).expect("a code"), code, "{path}");
    }
}

/// Fault: what a stream of server reflection was sent and its client did not let be answered was kept, and kept all others of its
/// connection from sending anything.
#[tokio::test]
async fn an_unread_conversation_keeps_nobody_of_its_connection_from_sending() {
    let address = served(ServeOptions::default()).await;
    // Nothing of an answer may be sent to it, but for its head.
    let mut sender = connect(&address, 0).await;
    let mut unread = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let list_services = message(false, &[0x3a, 0x01, b'*']);
        let sent: Vec<Bytes> = (0..16).map(|_| Bytes::from(list_services.repeat(MEGABYTE / 8 / 16))).collect();
        let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        let body = http_body_util::Either::Left(Unfinished(sent.into()));
        let (mut sender, request) = (sender.clone(), request_to(&address, path, body));
        unread.spawn(async move { sender.send_request(request).await });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let whole = message(false, &apply("other", "x".repeat(2 * MEGABYTE)).encode_to_vec());
    let whole = http_body_util::Either::Right(http_body_util::Full::new(whole));
    let answer = tokio::time::timeout(Duration::from_secs(10), sender.send_request(request(&address, whole))).await;
    assert_eq!(answer.expect("it is sent, and answered").expect("an answer").status(), 200);
}

/// Fault: 600 KB of requests that never came took all places among the calls for half a minute.
#[tokio::test]
async fn requests_that_never_come_keep_nobody_out() {
    let address = served(ServeOptions::default()).await;
    let mut coming = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let sender = connect(&address, 65_535).await;
        for _ in 0..128 {
            let (mut sender, address) = (sender.clone(), address.clone());
            coming.spawn(async move { drop(sender.send_request(request(&address, Unfinished::announcing(1))).await) });
        }
    }
    // More than there are places: those that have come first have made way for others of their kind.
    let until = Instant::now() + Duration::from_secs(20);
    while coming.try_join_next().is_none() {
        assert!(Instant::now() < until, "none made way");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut client = client(&address).await;
    for number in 0..200 {
        client.apply_entity(apply("small", format!("version {number}"))).await.expect("an apply");
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    let channel = endpoint.connect().await.expect("a connection");
    let request = tonic_health::pb::HealthCheckRequest { service: "liveness".to_owned() };
    let health = tonic_health::pb::health_client::HealthClient::new(channel).check(request).await;
    assert_eq!(health.expect("an answer").into_inner().status, 1, "SERVING");
}

/// Fault: 128 KB that unpacked to 126 MB of empty features took 7 GB when they were decoded.
#[tokio::test]
async fn what_would_take_much_memory_when_it_is_decoded_is_refused() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let server = Server::start(&format!("sqlite:///{}", folder.path().join("registry.db").display()));
    let before = server.peak();
    let spec = [&[0x0a, 0x01, b'v'][..], &[0x22, 0x00].repeat(30 * MEGABYTE)].concat();
    let mut view = Vec::new();
    prost::encoding::bytes::encode(1, &spec, &mut view);
    let mut apply = Vec::new();
    prost::encoding::bytes::encode(1, &view, &mut apply);
    prost::encoding::string::encode(4, &"p".to_owned(), &mut apply);
    let body = message(true, &gzipped(&apply));
    assert!(body.len() < MEGABYTE, "{}", body.len());
    let path = "/feast.registry.RegistryServer/ApplyFeatureView";
    let mut request = request_to(&server.address, path, http_body_util::Full::new(body));
    request.headers_mut().insert("grpc-encoding", http::HeaderValue::from_static("gzip"));
    let answer = connect(&server.address, 65_535).await.send_request(request).await.expect("an answer");
    assert_eq!(answer.headers()["grpc-status"], "3", "INVALID_ARGUMENT: {:?}", answer.headers());
    let took = (server.peak() - before) / MEGABYTE;
    assert!(took < 300, "{took} MB");
    // Nor does a question: it may not be so large.
    let mut tags = Vec::new();
    for number in 0..1_000_000_u32 {
        let mut entry = Vec::new();
        prost::encoding::bytes::encode(1, &number.to_le_bytes().to_vec(), &mut entry);
        prost::encoding::bytes::encode(3, &entry, &mut tags);
    }
    let path = "/feast.registry.RegistryServer/ListEntities";
    let list = request_to(&server.address, path, http_body_util::Full::new(message(false, &tags)));
    let answer = connect(&server.address, 65_535).await.send_request(list).await.expect("an answer");
    assert_eq!(answer.headers()["grpc-status"], "8", "RESOURCE_EXHAUSTED: {:?}", answer.headers());
}
