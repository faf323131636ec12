//! The header that a token is in.

use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::AUTHORIZATION;

use super::Unauthenticated;

/// The longest header that is looked at. Tokens of providers that list hundreds of groups have 8 KiB.
const LONGEST: usize = 16 * 1024;

/// The token of `authorization: Bearer <token>`.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Unauthenticated> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Err(Unauthenticated::missing()) };
    // Whoever looked at another one of them before would have seen another caller.
    if values.next().is_some() {
        return Err(Unauthenticated::bad("there are several `authorization` headers"));
    }
    if value.len() > LONGEST {
        return Err(Unauthenticated::bad(format!("the `authorization` header is longer than {LONGEST} bytes")));
    }
    let no_bearer = || Unauthenticated::bad("the `authorization` header is not `Bearer` and one token");
    let text = value.to_str().map_err(|_| no_bearer())?;
    if text.contains('\t') {
        return Err(no_bearer());
    }
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    match (words.next(), words.next(), words.next()) {
        (Some(scheme), Some(token), None) if scheme.eq_ignore_ascii_case("bearer") => Ok(token),
        _ => Err(no_bearer()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::codegen::http::HeaderValue;

    fn of(values: &[&[u8]]) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        bearer(&headers).map(str::to_owned).map_err(|error| error.why().to_owned())
    }

    #[test]
    fn exactly_one_header_with_exactly_two_words_has_a_token() {
        for value in ["Bearer abc", "bearer abc", "BEARER   abc", " Bearer abc "] {
            assert_eq!(of(&[value.as_bytes()]).as_deref(), Ok("abc"), "{value}");
        }
        for value in
            ["", "Bearer", "Bearer ", "abc", "Basic abc", "Bearer a b", "Bearer\tabc", "Bearerabc", "Bearer: abc x", "Bearer,abc"]
        {
            assert!(of(&[value.as_bytes()]).unwrap_err().contains("not `Bearer`"), "{value}");
        }
        assert!(of(&["Bearer ü".as_bytes()]).is_err());
        assert_eq!(of(&[]).unwrap_err(), "there is no `authorization` header");
        assert!(of(&[b"Bearer a", b"Bearer a"]).unwrap_err().contains("several"));
        assert!(of(&[b"Bearer a", b""]).unwrap_err().contains("several"));
        let long = |length: usize| format!("Bearer {}", "a".repeat(length - 7));
        assert!(of(&[long(LONGEST).as_bytes()]).is_ok());
        assert!(of(&[long(LONGEST + 1).as_bytes()]).unwrap_err().contains("longer than"));
    }
}
