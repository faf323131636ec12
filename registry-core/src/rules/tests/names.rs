//! Names that can be, and names that cannot.

use super::*;
use crate::backend::Limits;

const UNLIMITED: Limits = Limits::new(usize::MAX);
const AT_MOST_8: Limits = Limits::new(usize::MAX).with_name_chars(8);

fn named(kind: Kind, name: &str) -> Object {
    object(kind, json!({ "name": name }), json!({}))
}

fn named_kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Infra)
}

#[test]
fn names_that_cannot_be_are_refused_for_every_kind() {
    let names = [("empty", "", "empty"), ("with a NUL", "a\0b", "NUL"), ("a NUL", "\0", "NUL")];
    check_rows(named_kinds().flat_map(|kind| names.map(|name| (kind, name))), |(kind, (what, name, word))| {
        let error = check_names(&named(kind, name), PROJECT, &UNLIMITED).expect_err(what);
        let says = error.to_string().contains(word) && error.to_string().contains(kind.label());
        ensure(error.kind() == ErrorKind::InvalidArgument && says, || format!("{kind}, {what}: {error}"))?;
        let error = check_names(&thing(kind), name, &UNLIMITED).expect_err(what);
        let says = error.to_string().contains(word) && error.to_string().contains("project");
        ensure(error.kind() == ErrorKind::InvalidArgument && says, || format!("{kind} in a project, {what}: {error}"))
    });
}

#[test]
fn an_object_without_a_definition_has_no_name_and_is_refused() {
    check_rows(named_kinds(), |kind| {
        let error = check_names(&Object::new(kind, Bytes::new()), PROJECT, &UNLIMITED).expect_err("no name");
        ensure(error.kind() == ErrorKind::InvalidArgument, || format!("{kind}: {error}"))
    });
}

#[test]
fn a_view_has_no_name_with_what_separates_versions_and_features_from_it() {
    let names = ["@", ":", "trips@v2", "@trips", "trips:a", "trips:"];
    check_rows(named_kinds().flat_map(|kind| names.map(|name| (kind, name))), |(kind, name)| {
        let checked = check_names(&named(kind, name), PROJECT, &UNLIMITED);
        let reserved = if name.contains('@') { "`@`" } else { "`:`" };
        match checked {
            Ok(()) => ensure(!kind.is_view(), || format!("{kind}: `{name}` was accepted")),
            Err(error) => {
                let says = error.to_string().contains(name) && error.to_string().contains(reserved);
                let is_right = kind.is_view() && says && error.kind() == ErrorKind::InvalidArgument;
                ensure(is_right, || format!("{kind}: {error}"))
            }
        }
    });
}

#[test]
fn a_name_may_be_as_long_as_the_registry_stores_and_no_longer() {
    for name in ["12345678", "ééééééßß", "名前名前名前名前", "🚕🚕🚕🚕🚕🚕🚕🚕"] {
        check_rows(named_kinds(), |kind| {
            let longer = format!("{name}x");
            let fits = check_names(&named(kind, name), name, &AT_MOST_8).is_ok();
            ensure(fits, || format!("{kind}: `{name}` has 8 characters"))?;
            let error = check_names(&named(kind, &longer), PROJECT, &AT_MOST_8).expect_err("too long").to_string();
            ensure(error.contains('9') && error.contains('8'), || format!("{kind}: {error}"))?;
            ensure(check_names(&named(kind, &longer), PROJECT, &UNLIMITED).is_ok(), || format!("{kind}: no limit"))?;
            let error = check_names(&named(kind, name), &longer, &AT_MOST_8).expect_err("too long").to_string();
            ensure(error.contains("project"), || format!("{kind}: {error}"))
        });
    }
}

#[test]
fn the_answer_to_a_name_of_ten_thousand_characters_is_short() {
    let limits = Limits::new(usize::MAX).with_name_chars(255);
    let error = check_names(&named(Kind::Entity, &"n".repeat(10_000)), PROJECT, &limits).expect_err("too long");
    assert!(error.to_string().len() < 200, "{error}");
}

#[test]
fn names_in_any_script_and_case_are_fine_and_different() {
    let names =
        ["driver", "Driver", "DRIVER", "dríver", "dri\u{301}ver", "運転手", "a b", "a/b", "-", "'", "\"", "%", "\n"];
    let mut world = World::new();
    for name in names {
        let driver = named(Kind::Entity, name);
        check_names(&driver, PROJECT, &UNLIMITED).expect("a name");
        world.apply(&driver).expect("applied");
    }
    let all = world.read(Query::objects(Kind::Entity, Some(PROJECT)));
    assert_eq!(all.len(), names.len());
}

#[test]
fn infrastructure_needs_no_name_but_a_project() {
    check_names(&thing(Kind::Infra), PROJECT, &UNLIMITED).expect("no name is needed");
    assert_refused(check_names(&thing(Kind::Infra), "", &UNLIMITED), ErrorKind::InvalidArgument, &["project"]);
}
