//! Signed tokens (JSON Web Tokens, RFC 7519), taken apart and not believed yet.
//!
//! What verifies them is `ring`, which TLS brings anyway. The usual crate, `jsonwebtoken`, would bring a second library of
//! cryptography, one of which is C and the other thirty crates; what it does beyond that is less than what is checked here.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Json};

use super::keys::Algorithm;

/// How far the clocks of who gives tokens and of who checks them may be apart. As in Feast.
pub(super) const LEEWAY: Duration = Duration::from_secs(10);
/// The last second of the year 9999: no token lives longer.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// The algorithm of a token whose signature needs the secret that it is checked with.
pub(super) const SYMMETRIC: &str = "HS256";

/// A token that is well-formed. Whether it is genuine, only its signature tells.
pub(super) struct Jwt<'a> {
    /// What the signature is of.
    pub(super) signed: &'a str,
    pub(super) signature: Vec<u8>,
    /// The algorithm that it names.
    pub(super) algorithm: String,
    /// Which of its issuer's keys has signed it, if it says so.
    pub(super) key_id: Option<String>,
    pub(super) claims: Map<String, Json>,
}

impl<'a> Jwt<'a> {
    /// Takes a token apart, or says why it is none. A header that wants more of who checks it than is done here is refused;
    /// keys in it, and places to get keys from, are nothing that anybody believes.
    pub(super) fn parse(token: &'a str) -> Result<Self, &'static str> {
        let no_token = "the token is not three parts of base64url, separated by dots";
        let (signed, signature) = token.rsplit_once('.').ok_or(no_token)?;
        let (header, claims) = signed.split_once('.').ok_or(no_token)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| no_token);
        let signature = decode(signature)?;
        let mut header = object(&decode(header)?).ok_or("the header of the token is not a JSON object of distinct keys")?;
        let claims = object(&decode(claims)?).ok_or("the claims of the token are not a JSON object of distinct keys")?;
        if header.contains_key("crit") || header.contains_key("enc") || header.contains_key("zip") {
            return Err("the header of the token asks for an extension that is not known here");
        }
        match header.get("typ") {
            None => {}
            Some(Json::String(kind)) if is_access_token(kind) => {}
            Some(_) => return Err("the token is of another type than `JWT` and `at+jwt`"),
        }
        let Some(Json::String(algorithm)) = header.remove("alg") else {
            return Err("the header of the token names no algorithm");
        };
        let key_id = match header.remove("kid") {
            None => None,
            Some(Json::String(id)) => Some(id),
            Some(_) => return Err("the `kid` of the token is not a string"),
        };
        Ok(Self { signed, signature, algorithm, key_id, claims })
    }

    /// The algorithm, if it is one of those whose keys may be known to everybody.
    pub(super) fn asymmetric(&self) -> Option<Algorithm> {
        Algorithm::named(&self.algorithm)
    }

    /// Checks that now is within the time of the token. Returns when it ends.
    pub(super) fn lives_until(&self, now: SystemTime) -> Result<SystemTime, Dead> {
        let time = |name: &'static str| match self.claims.get(name) {
            None => Ok(None),
            Some(Json::Number(number)) => moment(number).map(Some).ok_or(Dead::NoTime(name)),
            Some(_) => Err(Dead::NoTime(name)),
        };
        let until = time("exp")?.ok_or(Dead::Endless)?;
        let until = until.checked_add(LEEWAY).ok_or(Dead::NoTime("exp"))?;
        if until <= now {
            return Err(Dead::Expired);
        }
        for name in ["nbf", "iat"] {
            if time(name)?.is_some_and(|since| now.checked_add(LEEWAY).is_none_or(|now| since > now)) {
                return Err(Dead::NotYet(name));
            }
        }
        Ok(until)
    }

    /// The first of these claims that is a string with something in it.
    pub(super) fn first_text(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.claims.get(*name).and_then(Json::as_str).filter(|text| !text.is_empty()))
    }
}

impl fmt::Debug for Jwt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Why a token does not count now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dead {
    Expired,
    Endless,
    NotYet(&'static str),
    NoTime(&'static str),
}

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("it has expired"),
            Self::Endless => f.write_str("it has no `exp`"),
            Self::NotYet(claim) => write!(f, "its `{claim}` is in the future; mind the clocks"),
            Self::NoTime(claim) => write!(f, "its `{claim}` is no time"),
        }
    }
}

/// Types of tokens that stand for who calls. Others are signed by the same keys and mean something else, such as that
/// somebody has logged out.
fn is_access_token(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt")
}

/// Seconds since 1970, of which a fraction does not count.
fn moment(number: &Number) -> Option<SystemTime> {
    let seconds = number.as_f64().filter(|seconds| (0.0..=LAST_SECOND).contains(seconds))?;
    // It is within a range that is exact.
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs_f64(seconds.floor()))
}

/// A JSON object in which no key is there twice: of two, others may look at the other one.
pub(super) fn object(bytes: &[u8]) -> Option<Map<String, Json>> {
    match serde_json::from_slice(bytes).ok()? {
        Distinct(Json::Object(object)) => Some(object),
        Distinct(_) => None,
    }
}

/// JSON whose objects have distinct keys. How deep it may be, the parser limits.
struct Distinct(Json);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DistinctVisitor).map(Distinct)
    }
}

struct DistinctVisitor;

impl<'de> Visitor<'de> for DistinctVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(Distinct(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Map::new();
        while let Some((key, Distinct(value))) = entries.next_entry::<String, Distinct>()? {
            if object.insert(key, value).is_some() {
                return Err(A::Error::custom("a key is there twice"));
            }
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(part: &str) -> String {
        URL_SAFE_NO_PAD.encode(part)
    }

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.{}", encoded(header), encoded(claims), encoded("signature"))
    }

    fn refusal(token: &str) -> &'static str {
        Jwt::parse(token).map(|_| ()).expect_err(token)
    }

    #[test]
    fn a_token_is_taken_apart() {
        let text = token(r#"{"alg":"RS256","kid":"a","typ":"JWT","jku":"https://evil","jwk":{"kty":"RSA"}}"#, r#"{"sub":"s"}"#);
        let jwt = Jwt::parse(&text).unwrap();
        assert_eq!((&*jwt.algorithm, jwt.key_id.as_deref(), &*jwt.signature), ("RS256", Some("a"), &b"signature"[..]));
        assert_eq!(jwt.first_text(&["preferred_username", "sub"]), Some("s"));
        assert!(!format!("{jwt:?}").contains("sub"));
        for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "jwt"] {
            assert!(Jwt::parse(&token(&format!(r#"{{"alg":"RS256","typ":"{typ}"}}"#), "{}")).is_ok(), "{typ}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let header = r#"{"alg":"RS256"}"#;
        for text in ["", ".", "..", "a.b", "a.b.c.d", "....", "Zg.Zg", "opaque", "sha256~abc"] {
            refusal(text);
        }
        let good = token(header, "{}");
        assert!(Jwt::parse(&good).is_ok());
        for (from, to) in [("ey", "e"), (".", ".."), (".", "="), ("ey", "ey "), ("ey", "+y")] {
            refusal(&good.replacen(from, to, 1));
        }
        refusal(&format!("{good}="));
        refusal(&format!("{good}."));
        // Bits that base64 does not need.
        refusal(&(good.trim_end_matches(|c| c != '.').to_owned() + "Zh"));
        for header in ["", "null", "[]", "\"a\"", "{", r#"{"alg":"RS256","alg":"none"}"#, "{\"alg\":\"RS256\"}{}", "\u{feff}{}"] {
            assert!(refusal(&token(header, "{}")).contains("header"), "{header}");
        }
        for claims in ["", "7", r#"{"sub":"a","sub":"b"}"#, r#"{"a":{"b":[{"c":1,"c":2}]}}"#, "{\"a\":\u{0}}"] {
            assert!(refusal(&token(header, claims)).contains("claims"), "{claims}");
        }
        assert!(refusal(&token(header, &format!("{{\"a\":{}", "[".repeat(10_000)))).contains("claims"));
        assert!(refusal(&token(r#"{"alg":["RS256"]}"#, "{}")).contains("algorithm"));
        assert!(refusal(&token("{}", "{}")).contains("algorithm"));
        assert!(refusal(&token(r#"{"alg":"RS256","kid":7}"#, "{}")).contains("kid"));
        for typ in [r#""logout+jwt""#, r#""dpop+jwt""#, r#""JWE""#, "7", "null", r#""""#] {
            assert!(refusal(&token(&format!(r#"{{"alg":"RS256","typ":{typ}}}"#), "{}")).contains("type"), "{typ}");
        }
        for extension in [r#""crit":["exp"]"#, r#""crit":[]"#, r#""zip":"DEF""#, r#""enc":"A128GCM""#] {
            assert!(refusal(&token(&format!(r#"{{"alg":"RS256",{extension}}}"#), "{}")).contains("extension"));
        }
    }

    #[test]
    fn a_token_lives_from_its_beginning_to_its_end() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let lives = |claims: &str| {
            let text = token(r#"{"alg":"RS256"}"#, claims);
            Jwt::parse(&text).unwrap().lives_until(now).map(|until| until.duration_since(now).unwrap().as_secs())
        };
        assert_eq!(lives(r#"{"exp":1000100}"#), Ok(110));
        assert_eq!(lives(r#"{"exp":1000100.9,"nbf":999999,"iat":999999.5}"#), Ok(110));
        assert_eq!(lives(r#"{"exp":999991}"#), Ok(1), "clocks may be apart");
        assert_eq!(lives(r#"{"exp":1000100,"nbf":1000010,"iat":1000010}"#), Ok(110));
        assert_eq!(lives(r#"{"exp":999990}"#), Err(Dead::Expired));
        assert_eq!(lives(r#"{"exp":0}"#), Err(Dead::Expired));
        assert_eq!(lives("{}"), Err(Dead::Endless));
        assert_eq!(lives(r#"{"exp":1000100,"nbf":1000011}"#), Err(Dead::NotYet("nbf")));
        assert_eq!(lives(r#"{"exp":1000100,"iat":1000011}"#), Err(Dead::NotYet("iat")));
        for exp in [r#""1000100""#, "null", "true", "[1000100]", "-1", "1e300", "18446744073709551615", "253402300800"] {
            assert_eq!(lives(&format!(r#"{{"exp":{exp}}}"#)), Err(Dead::NoTime("exp")), "{exp}");
        }
        assert_eq!(lives(r#"{"exp":1000100,"nbf":"0"}"#), Err(Dead::NoTime("nbf")));
        assert!(lives(r#"{"exp":253402300799}"#).is_ok());
    }
}
