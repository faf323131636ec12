//! What the claims of a token say of who has it (Feast: `OidcTokenParser`).

use feast_registry_core::access::Identity;
use serde_json::{Map, Value};

use super::Unauthenticated;

/// The claims of a token.
pub(super) type Claims = Map<String, Value>;

/// The claims that may have a name, the first of which that is text counts.
const NAMES: [&str; 5] = ["preferred_username", "upn", "azp", "appid", "sub"];

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
        _ if name.chars().any(char::is_control) => refused("the name in its token has control characters"),
        _ => Ok(Identity::new(name)),
    }
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
        assert_eq!(
            name(json!({"preferred_username": 7, "upn": null, "azp": "job", "sub": "1"})).as_deref(),
            Some("job")
        );
        assert_eq!(name(json!({"sub": "1"})).as_deref(), Some("1"));
        let too_long = json!({ "sub": "x".repeat(1025) });
        for nobody in [
            json!({}),
            json!({"sub": 1}),
            json!({"sub": " "}),
            json!({"email": "ann@x"}),
            json!({"sub": "a\nb"}),
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
