//! The name and the password that may stand in the address of a store, which must not be told.

use std::error::Error as StdError;
use std::fmt;

/// What an error says, and what those say that it is due to, without secrets.
#[derive(Debug)]
pub(super) struct Cause {
    text: String,
    source: Option<Box<Cause>>,
}

impl Cause {
    pub(super) fn of(error: &dyn StdError, clean: &dyn Fn(String) -> String) -> Self {
        let source = error.source().map(|source| Box::new(Self::of(source, clean)));
        Self { text: clean(error.to_string()), source }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// What stands before the host in an address: a name, and perhaps a password.
fn credentials(endpoint: &str) -> Option<&str> {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit_once('@').map(|(credentials, _)| credentials)
}

/// A text without the credentials of an endpoint, and without those in any address on the web: there may be others, as that of
/// a proxy.
pub(super) fn without_secrets(text: &str, endpoint: Option<&str>) -> String {
    let text = match endpoint.and_then(credentials) {
        Some(credentials) => text.replace(&format!("{credentials}@"), ""),
        None => text.to_owned(),
    };
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("://") {
        clean.push_str(before);
        clean.push_str("://");
        let is_web = before.ends_with("http") || before.ends_with("https");
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'`<>".contains(c)).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) if is_web => &after[at + 1..],
            _ => after,
        };
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credentials_of_an_address_are_found() {
        for (endpoint, found) in [
            ("http://me:secret@store:9000/path@x", Some("me:secret")),
            ("me:secret@store", Some("me:secret")),
            ("https://store/a@b", None),
        ] {
            assert_eq!(credentials(endpoint), found);
        }
    }

    /// Fault: what the client says was told without them, but what that was due to was not.
    #[test]
    fn no_cause_of_an_error_tells_a_secret() {
        let inner = object_store::Error::Generic { store: "S3", source: "PUT http://me:s3cret@store/a@b - 503".into() };
        let outer = object_store::Error::Generic { store: "S3", source: Box::new(inner) };
        let cause = Cause::of(&outer, &|text| without_secrets(&text, Some("http://me:s3cret@store")));
        let chain = std::iter::successors(Some(&cause as &(dyn StdError + 'static)), |&cause| cause.source());
        let said: Vec<String> = chain.map(ToString::to_string).collect();
        assert!(said.len() > 2, "{said:?}");
        assert!(said.iter().all(|text| text.contains("http://store/a@b") && !text.contains("s3cret")), "{said:?}");
    }

    #[test]
    fn what_is_no_secret_stays() {
        for (text, clean) in [
            ("abfss://container@account/x", "abfss://container@account/x"),
            ("via https://a:b@c@proxy:1 to http://store/a@b", "via https://proxy:1 to http://store/a@b"),
            ("http://", "http://"),
        ] {
            assert_eq!(without_secrets(text, None), clean);
        }
    }
}
