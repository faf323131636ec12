//! What a request says of how it is to be done.

use std::time::Duration;

use feast_registry_core::access::Access;
use feast_registry_core::{CallOptions, Waits};
use tokio::time::Instant;
use tonic::Request;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataMap;

use crate::callers::Credentials;
use crate::origin::{self, MAX_REASON};
use crate::parts::GZIP;
use crate::peer::Peer;
use crate::tenants::Memory;

/// How long the caller waits, as every gRPC client with a deadline says.
const TIMEOUT: &str = "grpc-timeout";

/// Why something is changed, in words, for the journal.
const REASON: &str = "x-registry-reason";

/// What the client says that it is.
const USER_AGENT: &str = "user-agent";

/// How much earlier than its caller a call gives up, so that the caller is told what is certain instead of nothing.
const MARGIN: Duration = Duration::from_millis(50);

/// When a call began, which is before its request has come: its client counts from then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Began(pub(crate) Instant);

/// How a request is to be done: until its deadline, or else for `usual`; by whom and why, for the journal.
pub(crate) fn options<T>(request: &Request<T>, usual: Duration) -> CallOptions {
    let options = options_of(request.metadata(), usual, began(request));
    let options = match request.extensions().get::<Waits>() {
        Some(waits) => options.with_waits(waits.clone()),
        None => options,
    };
    let options = match request.extensions().get::<Access>() {
        Some(access) => options.with_access(access.clone()),
        None => options,
    };
    match author(request) {
        Some(author) => options.with_author(author),
        None => options,
    }
}

/// When what says who calls is good no longer, if ever.
pub(crate) fn credentials<T>(request: &Request<T>) -> Option<Credentials> {
    request.extensions().get::<Credentials>().cloned()
}

/// The memory that the caller may have, if callers are known.
pub(crate) fn memory<T>(request: &Request<T>) -> Option<Memory> {
    request.extensions().get::<Memory>().cloned()
}

/// When the client of a call that may go on for as long as it likes gives up, if it says so.
pub(crate) fn deadline<T>(request: &Request<T>) -> Option<Instant> {
    let timeout = request.metadata().as_ref().get(TIMEOUT).and_then(|value| value.to_str().ok()).and_then(timeout)?;
    began(request).checked_add(timeout)
}

fn began<T>(request: &Request<T>) -> Instant {
    request.extensions().get::<Began>().map_or_else(Instant::now, |began| began.0)
}

fn author<T>(request: &Request<T>) -> Option<String> {
    let peer = request.extensions().get::<Peer>().copied();
    let agent = request.metadata().get(USER_AGENT).map(|agent| agent.as_encoded_bytes());
    let user = request.extensions().get::<Access>().map(|access| access.identity().username.as_str());
    origin::of_call(user, peer, agent)
}

fn options_of(metadata: &MetadataMap, usual: Duration, began: Instant) -> CallOptions {
    let timeout = timeout_of(metadata.as_ref(), usual);
    let timeout = timeout - MARGIN.min(timeout / 20);
    let options = match began.checked_add(timeout) {
        Some(deadline) => CallOptions::new().with_deadline(deadline),
        None => CallOptions::new().with_timeout(timeout),
    };
    let reason = metadata.get(REASON).and_then(|reason| origin::cleaned(reason.as_encoded_bytes(), MAX_REASON));
    match reason {
        Some(reason) => options.with_reason(reason),
        None => options,
    }
}

/// Whether the caller of a request takes answers that are compressed with gzip.
pub(crate) fn takes_gzip(metadata: &MetadataMap) -> bool {
    let accepted = metadata.get("grpc-accept-encoding").and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| accepted.split(',').any(|encoding| encoding.trim() == GZIP))
}

/// How long the caller of a request waits, as far as it says.
pub(crate) fn timeout_of(headers: &HeaderMap, usual: Duration) -> Duration {
    headers.get(TIMEOUT).and_then(|value| value.to_str().ok()).and_then(timeout).unwrap_or(usual)
}

/// Up to eight digits and a unit (gRPC over HTTP/2: `Timeout`).
fn timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(number * 3600)),
        'M' => Some(Duration::from_secs(number * 60)),
        'S' => Some(Duration::from_secs(number)),
        'm' => Some(Duration::from_millis(number)),
        'u' => Some(Duration::from_micros(number)),
        'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, read) in [
            ("5S", Some(Duration::from_secs(5))),
            ("4999m", Some(Duration::from_millis(4999))),
            ("20000u", Some(Duration::from_millis(20))),
            ("7n", Some(Duration::from_nanos(7))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000S", None),
            ("", None),
            ("S", None),
            ("5", None),
            ("-5S", None),
            ("5é", None),
        ] {
            assert_eq!(timeout(text), read, "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_gives_up_a_moment_before_its_caller() {
        let mut metadata = MetadataMap::new();
        metadata.insert(TIMEOUT, "5S".parse().expect("a value"));
        for usual in [Duration::from_secs(1), Duration::MAX] {
            // The request took a second to come.
            let began = Instant::now() - Duration::from_secs(1);
            let said = format!("{:?}", options_of(&metadata, usual, began));
            let expected = CallOptions::new().with_deadline(Instant::now() + Duration::from_millis(3950));
            assert_eq!(said, format!("{expected:?}"));
        }
        drop(options_of(&MetadataMap::new(), Duration::MAX, Instant::now()));
    }
}
