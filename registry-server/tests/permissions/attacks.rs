//! A tenant, who may do everything in `beta`, names `alpha` and what is in it wherever a request has room for a text.
//!
//! Where that is comes from the descriptors of the requests: each text in them, however deep, is set in turn. Whatever the answer is,
//! nothing of `alpha` changes, and nothing of it is told or stored elsewhere.

use std::collections::BTreeMap;

use feast_registry_core::{Image, JournalQuery, Revision};
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use crate::fixture::{Fixture, SECRET, Snapshot, Who, World};
use crate::rpcs::{Absent, Ask, ROWS, Row};
use crate::wire::{self, Answer, End};

/// The fields from a request to a text in it.
type Path = Vec<FieldDescriptor>;

/// How often a message may be within itself, as the source of a source.
const NESTED: usize = 1;

/// All texts that a message has room for.
fn texts(of: &MessageDescriptor, path: &Path, found: &mut Vec<Path>) {
    let depth = |inner: &MessageDescriptor| path.iter().filter(|field| field.parent_message() == inner).count();
    for field in of.fields() {
        let value =
            if field.is_map() { field.kind().as_message().map(|entry| entry.map_entry_value_field()) } else { None };
        let kind = value.map_or_else(|| field.kind(), |value| value.kind());
        let longer = [path.as_slice(), std::slice::from_ref(&field)].concat();
        match kind {
            Kind::String => found.push(longer),
            Kind::Message(inner) if depth(&inner) < NESTED => texts(&inner, &longer, found),
            _ => {}
        }
    }
}

/// Sets a text, and makes what it is in.
fn set(message: &mut DynamicMessage, path: &[FieldDescriptor], text: &str) {
    let Some((field, rest)) = path.split_first() else { return };
    let own = Value::String(text.to_owned());
    let key = MapKey::String(text.to_owned());
    match message.get_field_mut(field) {
        Value::Map(map) if rest.is_empty() => drop(map.insert(key, own)),
        Value::Map(map) => {
            let value = field.kind().as_message().expect("an entry").map_entry_value_field();
            let inner = value.kind().as_message().expect("a message").clone();
            let entry = map.entry(key).or_insert_with(|| Value::Message(DynamicMessage::new(inner)));
            set(entry.as_message_mut().expect("a message"), rest, text);
        }
        Value::List(list) if rest.is_empty() => *list = vec![own],
        Value::List(list) => {
            if list.is_empty() {
                let inner = field.kind().as_message().expect("a message").clone();
                list.push(Value::Message(DynamicMessage::new(inner)));
            }
            set(list[0].as_message_mut().expect("a message"), rest, text);
        }
        Value::Message(inner) => set(inner, rest, text),
        value => *value = own,
    }
}

fn shown(path: &Path) -> String {
    path.iter().map(|field| field.name().to_owned()).collect::<Vec<_>>().join(".")
}

fn is_of_project(path: &Path) -> bool {
    path.last().is_some_and(|field| field.name().contains("project"))
}

/// Messages of one request, each with what is wrong in it.
fn attacks(row: &Row, fixture: &Fixture) -> Vec<(String, DynamicMessage)> {
    let method = fixture.method(row.rpc);
    let mut paths = Vec::new();
    texts(&method.input(), &Path::new(), &mut paths);
    let mut attacks = Vec::new();
    for own in ["own", "new"] {
        let revision = match row.absent {
            Absent::Revision => fixture.changed,
            _ => fixture.began + 1,
        };
        let ask = Ask { revision, ..Ask::of("beta", &format!("{own}_{}", row.noun), "said by the caller") };
        let base = wire::message(&method, (row.request)(&ask));
        attacks.push((format!("{own}: as it is"), base.clone()));
        for text in ["alpha", &format!("hidden_{}", row.noun)] {
            for path in &paths {
                let mut attack = base.clone();
                set(&mut attack, path, text);
                attacks.push((format!("{own}: {} = {text}", shown(path)), attack));
            }
        }
        // All that name a project, but for where the request says which, and the other way around.
        for is_outer in [false, true] {
            let mut attack = base.clone();
            for path in paths.iter().filter(|path| is_of_project(path) && (path.len() == 1) == is_outer) {
                // Of those of which there can be one only, the request keeps its own.
                if path[0].containing_oneof().is_none_or(|_| base.has_field(&path[0])) {
                    set(&mut attack, path, "alpha");
                }
            }
            attacks.push((format!("{own}: all projects, of the request itself: {is_outer}"), attack));
        }
    }
    attacks
}

/// What an attack came to that it must not. Nothing changes without a commit, so what that changed is looked at.
async fn faults(fixture: &Fixture, journaled: u64, answer: &Answer) -> Vec<String> {
    let mut faults = Vec::new();
    if answer.tells(SECRET) {
        faults.push("a secret was told".to_owned());
    }
    let query = JournalQuery::after(Revision::new(journaled), 100);
    for change in fixture.registry.journal(&query).await.expect("the journal").iter().flat_map(|entry| &entry.changes) {
        if ["alpha", "lobby"].contains(&change.target.project()) {
            faults.push(format!("{:?} was changed", change.target));
        }
        if let Image::Value(value) = &change.after
            && contains(value, SECRET)
        {
            faults.push(format!("a secret was stored under {:?}", change.target));
        }
    }
    faults
}

fn contains(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}

#[tokio::test]
async fn a_tenant_who_names_another_project_anywhere_neither_changes_nor_learns_of_it() {
    let world = World::new().await;
    let [token, _] = world.credentials(Who::Stranger);
    let mut found = Vec::new();
    let mut tried: BTreeMap<&str, usize> = BTreeMap::new();
    for row in ROWS.iter().filter(|row| !row.is_public) {
        let mut fixture = Fixture::start_open(&world).await;
        let mut before = fixture.snapshot().await;
        for (what, attack) in attacks(row, &fixture) {
            *tried.entry(row.rpc).or_default() += 1;
            let journaled = fixture.newest().await;
            let answer = call(&fixture, row, &attack, &token).await;
            for fault in faults(&fixture, journaled, &answer).await {
                found.push(format!("{} ({what}): {fault}: {}", row.rpc, answer.text().escape_debug()));
            }
            // The tenant has to go on being one.
            if fixture.newest().await != journaled && fixture.snapshot().await.of("beta").is_empty() {
                check(&fixture, &before, row, &token, &mut found).await;
                fixture = Fixture::start_open(&world).await;
                before = fixture.snapshot().await;
            }
        }
        check(&fixture, &before, row, &token, &mut found).await;
    }
    assert!(tried.values().sum::<usize>() > 1000, "{tried:?}");
    assert!(found.is_empty(), "{} faults:\n{}", found.len(), found.join("\n"));
}

async fn call(fixture: &Fixture, row: &Row, message: &DynamicMessage, token: &str) -> Answer {
    // What names anything else in a watch may have nothing to wait for.
    let end = if matches!(row.end, End::Words(_)) { End::Briefly } else { row.end };
    wire::call(&fixture.channel, row.rpc, message.encode_to_vec(), &[token], end).await
}

/// After many attacks with one method: `alpha` is as it was, and the tenant is still a stranger there.
async fn check(fixture: &Fixture, before: &Snapshot, row: &Row, token: &str, found: &mut Vec<String>) {
    if fixture.snapshot().await.of("alpha") != before.of("alpha") {
        found.push(format!("{}: alpha was changed", row.rpc));
    }
    for probe in ROWS.iter().filter(|probe| probe.rpc.ends_with("/GetEntity") || probe.rpc.ends_with("/Proto")) {
        let request = (probe.request)(&Ask::of("alpha", "hidden_entity", ""));
        let answer = fixture.call(probe.rpc, request, &[token], End::Servers).await;
        if answer.tells(SECRET) {
            found.push(format!("{}: what is in alpha can be read since: {}", row.rpc, answer.text().escape_debug()));
        }
    }
}
