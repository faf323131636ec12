//! A stub of Google Cloud Storage: as much of its XML API as the client uses here. It proves what the client asks for, not
//! what Google answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::{HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Bytes;

use super::{Object, Server, number, status};

/// A store that answers within microseconds has writers that leave no room between two writes, as no network has.
const LATENCY: Duration = Duration::from_millis(2);

type Objects = HashMap<String, (Bytes, u64)>;

pub(crate) fn start() -> Server {
    let state: Arc<Mutex<(Objects, u64)>> = Arc::default();
    Server::start(Arc::new(move |request| {
        let response = {
            let mut state = state.lock().expect("no handler panics");
            let (objects, generations) = &mut *state;
            let path = request.uri().path().to_owned();
            let generation = |text: &HeaderValue| text.to_str().ok().and_then(|text| text.parse::<u64>().ok());
            let expected = request.headers().get("x-goog-if-generation-match").map(generation);
            match *request.method() {
                Method::PUT => {
                    // Generation 0 is that of an object that is not there.
                    let stored = objects.get(&path).map_or(0, |(_, generation)| *generation);
                    if expected.is_some_and(|expected| expected != Some(stored)) {
                        status(StatusCode::PRECONDITION_FAILED)
                    } else {
                        *generations += 1;
                        objects.insert(path, (request.body().clone(), *generations));
                        described(Bytes::new(), *generations)
                    }
                }
                Method::GET | Method::HEAD => match objects.get(&path) {
                    Some((bytes, generation)) => described(bytes.clone(), *generation),
                    None => status(StatusCode::NOT_FOUND),
                },
                Method::DELETE => {
                    let was_there = objects.remove(&path).is_some();
                    status(if was_there { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND })
                }
                _ => status(StatusCode::METHOD_NOT_ALLOWED),
            }
        };
        Box::pin(async move {
            tokio::time::sleep(LATENCY).await;
            response
        })
    }))
}

/// An answer with what identifies a state of an object.
fn described(body: Bytes, generation: u64) -> Response<Bytes> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let text = |text: String| HeaderValue::from_str(&text).expect("a header");
    headers.insert("x-goog-generation", HeaderValue::from(generation));
    headers.insert(header::ETAG, text(format!("\"{generation:x}\"")));
    headers.insert(header::LAST_MODIFIED, HeaderValue::from_static("Tue, 14 Nov 2023 22:13:20 GMT"));
    response
}

/// A new object on a server.
pub(crate) fn object(server: &Server) -> Object {
    Object {
        url: format!("gs://bucket/tests/{}/registry.db", number()),
        settings: vec![("STORAGE_EMULATOR_HOST".to_owned(), format!("http://{}", server.address))],
        server: server.address,
    }
}

/// The server that the tests of this process share.
pub(crate) fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(start)
}
