//! What the claims of a token say of who has it (Feast: `OidcTokenParser`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use feast_registry_core::access::Identity;
use serde_json::{Map, Value};

use super::Unauthenticated;
use super::internal::NAME as INTERNAL;
use crate::origin::is_unsafe;

/// The claims of a token.
pub(super) type Claims = Map<String, Value>;

/// The claims that may have a name, the first of which that is text counts. Unlike in Feast, `sub` comes before those that name the
/// application that somebody uses: what one person has made must not be everybody's who uses the same.
const NAMES: [&str; 5] = ["preferred_username", "upn", "sub", "azp", "appid"];

/// The longest name, in bytes.
const LONGEST: usize = 1024;

/// Who has a token with these claims. Roles are those of the client and those at the top.
pub(super) fn identity(claims: &Claims, client_id: Option<&str>) -> Result<Identity, Unauthenticated> {
    let named = NAMES.iter().find_map(|name| claims.get(*name)?.as_str()).unwrap_or_default();
    let of_client = client_id.and_then(|client| claims.get("resource_access")?.get(client)?.get("roles"));
    let roles = [of_client, claims.get("roles")].into_iter().flat_map(texts);
    Ok(name(named)?.with_roles(roles).with_groups(texts(claims.get("groups"))))
}

/// Somebody of this name, if it can be shown to people as it is: it stands in logs, in the journal and in errors.
pub(super) fn name(name: &str) -> Result<Identity, Unauthenticated> {
    let refused = |why: &str| Err(Unauthenticated::Refused(why.to_owned()));
    match name {
        _ if name.trim().is_empty() => refused("its token does not say whose it is"),
        _ if name.len() > LONGEST => refused("the name in its token is too long"),
        _ if name.chars().any(is_unsafe) => refused("the name in its token has characters that are not to be seen"),
        INTERNAL => refused("the name in its token is that of internal calls"),
        _ => Ok(Identity::new(name)),
    }
}

/// When a token with these claims, which were verified, is good no longer: a number that may have a fraction (RFC 7519, 2).
pub(super) fn end(claims: &Claims) -> Option<SystemTime> {
    let exp = claims.get("exp").and_then(Value::as_f64).filter(|exp| (0.0..1e11).contains(exp))?;
    Some(UNIX_EPOCH + Duration::from_secs_f64(exp))
}

fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(claims: Value) -> Option<Identity> {
        identity(claims.as_object().expect("an object"), Some("feast")).ok()
    }

    #[test]
    fn the_first_name_that_is_text_counts() {
        let name = |claims| of(claims).map(|identity| identity.username);
        assert_eq!(name(json!({"preferred_username": "ann", "sub": "1"})).as_deref(), Some("ann"));
        assert_eq!(name(json!({"preferred_username": 7, "upn": null, "azp": "job", "sub": "1"})).as_deref(), Some("1"));
        assert_eq!(name(json!({"azp": "job", "appid": "other"})).as_deref(), Some("job"));
        assert_eq!(name(json!({"sub": "1"})).as_deref(), Some("1"));
        let too_long = json!({ "sub": "x".repeat(1025) });
        for nobody in [
            json!({}),
            json!({"sub": 1}),
            json!({"sub": " "}),
            json!({"email": "ann@x"}),
            json!({"sub": "a\nb"}),
            json!({"sub": "a\u{200b}"}),
            json!({"sub": "intra-communication"}),
            too_long,
        ] {
            assert_eq!(name(nobody), None);
        }
    }

    #[test]
    fn roles_are_those_of_the_client_and_those_at_the_top() {
        let ann = of(json!({
            "sub": "ann",
            "resource_access": {"feast": {"roles": ["reader", 7]}, "other": {"roles": ["root"]}},
            "realm_access": {"roles": ["root"]},
            "roles": ["writer", "reader"],
            "groups": ["team", null, "/team/a"],
        }))
        .expect("an identity");
        assert_eq!(ann, Identity::new("ann").with_roles(["reader", "writer"]).with_groups(["team", "/team/a"]));
        let odd = of(json!({"sub": "ann", "roles": "root", "groups": {"root": true}, "resource_access": []}));
        assert_eq!(odd, Some(Identity::new("ann")));
    }
}
