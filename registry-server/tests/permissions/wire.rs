//! Calls of any method that the server says that it has, with messages that are made from its own descriptors.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Buf, BufMut};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use serde_json::Value;
use tokio::time::timeout;
use tokio_stream::once;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{AsciiMetadataValue, KeyAndValueRef};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_reflection::pb::{v1, v1alpha};

/// A call that takes longer has gone wrong.
const SOON: Duration = Duration::from_secs(30);
/// For how long it is waited for what is not expected.
const MOMENT: Duration = Duration::from_millis(200);

/// Messages as the bytes that they are.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buf.copy_to_bytes(buf.remaining()).to_vec()))
    }
}

/// When enough of an answer has come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// When the server ends it.
    Servers,
    /// After the first message.
    First,
    /// When these words have come, of a stream that goes on.
    Words(&'static str),
    /// When nothing has come for a moment.
    Briefly,
}

/// All that a caller is told.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) code: Code,
    /// Of the status.
    pub(crate) message: String,
    /// The messages of the answer, one after the other.
    pub(crate) bytes: Vec<u8>,
    /// Details and metadata of the status, but for what differs from call to call.
    rest: Vec<u8>,
}

impl Answer {
    /// All of it as one text, in which what is no text is replaced.
    pub(crate) fn text(&self) -> String {
        let Self { code, message, bytes, rest } = self;
        format!("{code:?} {message} {} {}", String::from_utf8_lossy(bytes), String::from_utf8_lossy(rest))
    }

    pub(crate) fn tells(&self, words: &str) -> bool {
        self.text().contains(words)
    }
}

/// Calls a method with a message and these authorization headers.
pub(crate) async fn call(channel: &Channel, path: &str, message: Vec<u8>, authorization: &[&str], end: End) -> Answer {
    let mut request = Request::new(once(message));
    for value in authorization {
        let value = AsciiMetadataValue::try_from(*value).expect("a header");
        request.metadata_mut().append("authorization", value);
    }
    let mut bytes = Vec::new();
    let calling = async {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.map_err(|error| Status::aborted(error.to_string()))?;
        let path = format!("/{path}").parse().expect("a path");
        let mut stream = client.streaming(request, path, Raw).await?.into_inner();
        let patience = if matches!(end, End::Briefly) { MOMENT } else { SOON };
        while let Ok(next) = timeout(patience, stream.message()).await {
            let Some(message) = next? else { return Ok(()) };
            bytes.extend(message);
            let has_come = |words: &str| bytes.windows(words.len()).any(|window| window == words.as_bytes());
            match end {
                End::First => return Ok(()),
                End::Words(words) if has_come(words) => return Ok(()),
                End::Servers | End::Words(_) | End::Briefly => {}
            }
        }
        Ok(())
    };
    let called: Result<(), Status> = timeout(2 * SOON, calling).await.unwrap_or_else(|_| panic!("{path} does not end"));
    let Err(status) = called else { return Answer { code: Code::Ok, message: String::new(), bytes, rest: Vec::new() } };
    let mut rest = status.details().to_vec();
    for entry in status.metadata().iter() {
        let (name, value) = match entry {
            KeyAndValueRef::Ascii(name, value) => (name.as_str(), value.as_encoded_bytes()),
            KeyAndValueRef::Binary(name, value) => (name.as_str(), value.as_encoded_bytes()),
        };
        if !["x-request-id", "date", "content-length"].contains(&name) {
            rest.extend([b"\n", name.as_bytes(), b": ", value].concat());
        }
    }
    Answer { code: status.code(), message: status.message().to_owned(), bytes, rest }
}

/// The bytes of a message that is written as JSON.
pub(crate) fn message(method: &MethodDescriptor, json: Value) -> DynamicMessage {
    let text = json.to_string();
    DynamicMessage::deserialize(method.input(), json)
        .unwrap_or_else(|error| panic!("{} of {}: {error}: {text}", method.input().full_name(), method.full_name()))
}

/// What the server says by reflection, in either version, that can be called.
pub(crate) async fn descriptors(channel: &Channel) -> DescriptorPool {
    let mut pool = DescriptorPool::new();
    for is_alpha in [false, true] {
        let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
        let mut wanted: Vec<Ask> = services(channel, is_alpha).await.into_iter().map(Ask::Symbol).collect();
        while let Some(ask) = wanted.pop() {
            if let Ask::File(name) = &ask
                && seen.contains(name)
            {
                continue;
            }
            for file in described(channel, is_alpha, ask).await {
                let file = FileDescriptorProto::decode(&*file).expect("a descriptor");
                if seen.insert(file.name().to_owned()) {
                    wanted.extend(file.dependency.iter().cloned().map(Ask::File));
                    files.push(file);
                }
            }
        }
        pool.add_file_descriptor_set(FileDescriptorSet { file: files }).expect("whole descriptors");
    }
    pool
}

/// All methods, as `package.Service/Method`.
pub(crate) fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
    pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

pub(crate) fn path_of(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

/// What reflection is asked for.
enum Ask {
    File(String),
    Symbol(String),
}

macro_rules! reflect {
    ($version:ident, $channel:expr, $ask:expr) => {{
        use $version::server_reflection_request::MessageRequest;
        use $version::server_reflection_response::MessageResponse;
        let mut client = $version::server_reflection_client::ServerReflectionClient::new($channel.clone());
        let asked = match $ask {
            None => MessageRequest::ListServices(String::new()),
            Some(Ask::File(name)) => MessageRequest::FileByFilename(name),
            Some(Ask::Symbol(name)) => MessageRequest::FileContainingSymbol(name),
        };
        let request = $version::ServerReflectionRequest { host: String::new(), message_request: Some(asked) };
        let mut answers = client.server_reflection_info(once(request)).await.expect("reflection").into_inner();
        match answers.message().await.expect("an answer").and_then(|answer| answer.message_response) {
            Some(MessageResponse::FileDescriptorResponse(answer)) => (Vec::new(), answer.file_descriptor_proto),
            Some(MessageResponse::ListServicesResponse(answer)) => {
                (answer.service.into_iter().map(|service| service.name).collect::<Vec<_>>(), Vec::new())
            }
            other => panic!("{other:?}"),
        }
    }};
}

async fn asked(channel: &Channel, is_alpha: bool, ask: Option<Ask>) -> (Vec<String>, Vec<Vec<u8>>) {
    if is_alpha { reflect!(v1alpha, channel, ask) } else { reflect!(v1, channel, ask) }
}

async fn services(channel: &Channel, is_alpha: bool) -> Vec<String> {
    asked(channel, is_alpha, None).await.0
}

async fn described(channel: &Channel, is_alpha: bool, ask: Ask) -> Vec<Vec<u8>> {
    asked(channel, is_alpha, Some(ask)).await.1
}
