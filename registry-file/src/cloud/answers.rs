//! What the answers of a store mean, as far as its client says.

use object_store::client::{HttpError, HttpErrorKind};

/// What comes before the status in the words of the client.
const STATUS: &str = " status code: ";

/// The status that a request was answered with. The client says it in words only, after a URL, which has no spaces: see
/// `a_write_that_the_store_refuses_is_not_in_doubt`.
pub(super) fn status(error: &object_store::Error) -> Option<u16> {
    let text = error.to_string();
    text.split_once(STATUS)?.1.get(..3)?.parse().ok()
}

/// Whether a request that was sent once was certainly not carried out: it found no connection, or the store says that it is
/// not going to.
pub(super) fn is_refused(error: &object_store::Error) -> bool {
    match status(error) {
        // 408 is an answer to a request that has come too slowly, in part or whole.
        Some(status) => (400..500).contains(&status) && status != 408,
        None => std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source())
            .find_map(|cause| cause.downcast_ref::<HttpError>())
            .is_some_and(|error| error.kind() == HttpErrorKind::Connect),
    }
}

pub(super) fn is_condition(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
}

pub(super) fn is_unsupported(error: &object_store::Error) -> bool {
    // What comes before is the URL, in which there may be anything.
    let names_it = || error.to_string().split_once(STATUS).is_some_and(|(_, said)| said.contains("NotImplemented"));
    matches!(error, object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. })
        // Stores answer this to a header that they do not implement.
        || status(error) == Some(501)
        || names_it()
}

/// Whether this is no answer of an object store, but perhaps of its console, or of a web server: a page for people, a
/// success without what a store says of an object, or that such a request cannot be at all.
pub(super) fn is_strange(error: &object_store::Error) -> bool {
    match status(error) {
        Some(405) => true,
        // Of a server that fails, a proxy may say so with a page.
        Some(status) => (200..500).contains(&status) && status != 429 && has_page(&error.to_string()),
        None => error.to_string().contains("Header missing from response"),
    }
}

/// Whether what was sent for an object is a page for people. A registry is none: it does not begin with `<`.
pub(super) fn is_page(sent: &[u8]) -> bool {
    let beginning = sent.trim_ascii_start().get(..9).unwrap_or_default().to_ascii_lowercase();
    beginning.starts_with(b"<html") || beginning == b"<!doctype"
}

/// Whether there is a page for people in an answer.
fn has_page(text: &str) -> bool {
    let said = text.split_once(STATUS).map(|(_, said)| said.to_ascii_lowercase()).unwrap_or_default();
    said.contains("<html") || said.contains("<!doctype html")
}

/// The words of the client without the page that was answered.
pub(super) fn without_page(error: &object_store::Error) -> String {
    let text = error.to_string();
    match text.split_once(STATUS) {
        Some((before, said)) if has_page(&text) => {
            let status = said.split(['<', '\n']).next().unwrap_or_default();
            format!("{before}{STATUS}{} a web page", status.trim_end())
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.into() }
    }

    /// Fault: the name of a probe is random, and with «501» in it any failure was taken for a store without conditions.
    #[test]
    fn what_a_store_refuses_is_told_by_its_answer_and_not_by_the_url() {
        let failed = "Error performing PUT http://127.0.0.1:5010/NotImplemented/registry.db.probe-a501b in 1ms";
        for (said, is_so) in [
            (" - HTTP error: error sending request", false),
            (" - Server returned non-2xx status code: 503 Service Unavailable: 501", false),
            (" - Server returned non-2xx status code: 501 Not Implemented: ", true),
            (" - Server returned non-2xx status code: 400 Bad Request: <Code>NotImplemented</Code>", true),
        ] {
            assert_eq!(is_unsupported(&error(&format!("{failed}{said}"))), is_so, "{said}");
        }
    }

    #[test]
    fn a_page_for_people_is_no_answer_of_a_store() {
        let failed = "Error performing PUT http://store:9001/<html>/registry.db in 1ms - Server returned non-2xx";
        for (said, is_so) in [
            ("ETag Header missing from response".to_owned(), true),
            (format!("{failed} status code: 404 Not Found: \n<!DOCTYPE html>..."), true),
            (format!("{failed} status code: 405 Method Not Allowed: "), true),
            (format!("{failed} status code: 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>"), false),
            (format!("{failed} status code: 502 Bad Gateway: <html>nginx</html>"), false),
            (format!("{failed} - HTTP error: error sending request"), false),
        ] {
            assert_eq!(is_strange(&error(&said)), is_so, "{said}");
        }
        assert!(is_page(b"\n<!DOCTYPE html>") && is_page(b"<html lang=en>"));
        assert!(!is_page(b"<Error>NoSuchKey") && !is_page(b"\n\x05rides") && !is_page(b""));
        let told = without_page(&error(&format!("{failed} status code: 403 Forbidden: <html>secrets</html>")));
        assert!(told.ends_with("status code: 403 Forbidden: a web page"), "{told}");
    }
}
