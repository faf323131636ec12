//! Who may do what, of all that the server can be asked for: each method, each kind of caller, what is there and what is not.
//!
//! What there is to ask for comes from the server's own reflection, and what is to be answered from one table ([`rpcs`]): a new method
//! fails the first test until it has a row there.

mod attacks;
mod fixture;
mod particular;
mod provider;
mod rest;
mod rpcs;
mod wire;

use std::collections::BTreeSet;

use fixture::{Fixture, SECRET, Who, World};
use rpcs::{Absent, Ask, ROWS, Row};
use tonic::Code;
use wire::Answer;

/// As long as what is there in its place, so that answers can be compared byte by byte.
const NOT_THERE: (&str, &str, u64) = ("absent", "omega", 999_999);

#[tokio::test]
async fn the_table_has_each_method_that_the_server_has() {
    let fixture = Fixture::start(&World::new().await).await;
    let served: BTreeSet<String> = wire::methods(&fixture.pool).iter().map(wire::path_of).collect();
    let in_table: BTreeSet<String> = ROWS.iter().map(|row| row.rpc.to_owned()).collect();
    assert_eq!(served, in_table);
    for service in ["feast.registry.RegistryServer/", "feast_registry.v1.History/", "grpc.health.v1.Health/"] {
        assert!(served.iter().any(|path| path.starts_with(service)), "{service} is told of");
    }
}

#[tokio::test]
async fn who_does_not_say_who_they_are_is_told_nothing() {
    let world = World::new().await;
    let fixture = Fixture::start(&world).await;
    let before = fixture.snapshot().await;
    let mut faults = Vec::new();
    for (what, credentials) in world.bad_credentials() {
        let credentials: Vec<&str> = credentials.iter().map(String::as_str).collect();
        for row in ROWS {
            let ask = hidden(&fixture, row, false);
            let answer = fixture.call(row.rpc, (row.request)(&ask), &credentials, row.end).await;
            let expected = if row.is_public { Code::Ok } else { Code::Unauthenticated };
            if answer.code != expected || [SECRET, "hidden_", "open_"].iter().any(|words| answer.tells(words)) {
                faults.push(format!("{} with {what}: {}", row.rpc, answer.text()));
            }
        }
        if fixture.snapshot().await != before {
            faults.push(format!("something was changed with {what}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test]
async fn each_caller_is_told_and_may_do_what_the_table_says() {
    let world = World::new().await;
    let mut fixture = Fixture::start(&world).await;
    let mut faults = Vec::new();
    for row in ROWS {
        for who in Who::ALL {
            for (is_signed, credentials) in [false, true].into_iter().zip(world.credentials(who)) {
                let (has_changed, told) = check(&fixture, row, who, &credentials).await;
                let by = if is_signed { "a signed token" } else { "a token" };
                faults.extend(told.into_iter().map(|fault| format!("{} by {who:?} with {by}: {fault}", row.rpc)));
                if has_changed {
                    fixture = Fixture::start(&world).await;
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Asks for what is there and for what is not, and says what is wrong with the answers, and whether anything was changed.
async fn check(fixture: &Fixture, row: &Row, who: Who, credentials: &str) -> (bool, Vec<String>) {
    let mut faults = Vec::new();
    let mut has_changed = false;
    for cached in [false, true] {
        let hidden = hidden(fixture, row, cached);
        if cached && (row.request)(&hidden) == (row.request)(&Ask { cached: false, ..hidden.clone() }) {
            continue;
        }
        let mut answers = Vec::new();
        // What is not there comes first: what is there may be deleted.
        for (is_there, ask, codes) in
            [(false, absent(&hidden, row), row.of_absent), (true, hidden.clone(), row.of_hidden)]
        {
            let before = fixture.snapshot().await;
            let request = (row.request)(&ask);
            // What they have said themselves they may be told.
            let said = if request.to_string().contains(&ask.name) { ask.name.clone() } else { "…".to_owned() };
            let answer = fixture.call(row.rpc, request, &[credentials], row.end).await;
            let changed = fixture.snapshot().await != before;
            has_changed = has_changed || changed;
            let expected = codes[who as usize];
            let mut wrong = |what: &str| {
                faults.push(format!("{what}, there: {is_there}, cached: {cached}: {}", answer.text().escape_debug()));
            };
            if answer.code != expected {
                wrong(&format!("not {expected:?}"));
            }
            if changed && (answer.code != Code::Ok || !row.changes) {
                wrong("something was changed");
            }
            if row.changes && answer.code == Code::Ok && !changed {
                wrong("nothing was changed");
            }
            if is_there && answer.code == Code::Ok && !row.is_public {
                for words in row.shows.iter().filter(|words| is_shown(who, words) && !answer.tells(words)) {
                    wrong(&format!("`{words}` is not in it"));
                }
            }
            for words in leaked(who, &answer.text(), &said) {
                wrong(&format!("`{words}` is in it"));
            }
            answers.push(masked(&answer, &ask));
        }
        let is_blind = matches!(who, Who::Stranger | Who::Picky);
        if is_blind && row.tells_alike && !row.is_public && answers[0] != answers[1] && !answers[0].starts_with("Ok") {
            faults.push(format!("what is there is told from what is not: {answers:?}"));
        }
        if who == Who::Stranger && row.tells_alike && !row.is_public {
            // Nor is it told whether there is such a project.
            let ask = Ask { project: NOT_THERE.1.to_owned(), ..hidden };
            let answer = fixture.call(row.rpc, (row.request)(&ask), &[credentials], row.end).await;
            answers.push(masked(&answer, &ask));
            if answers[1..].iter().any(|answer| *answer != answers[0]) {
                faults.push(format!("what is there is told from what is not: {answers:?}"));
            }
        }
    }
    (has_changed, faults)
}

/// What is asked of something that is there.
fn hidden(fixture: &Fixture, row: &Row, cached: bool) -> Ask {
    let (began, revision) = (fixture.began, fixture.changed);
    Ask { cached, began, revision, ..Ask::of("alpha", &format!("hidden_{}", row.noun), "said by the caller") }
}

/// The same of something that is not.
fn absent(ask: &Ask, row: &Row) -> Ask {
    let mut ask = ask.clone();
    let (prefix, project, revision) = NOT_THERE;
    match row.absent {
        Absent::Name => ask.name = ask.name.replace("hidden", prefix),
        Absent::Project => ask.project = project.to_owned(),
        Absent::Revision => ask.revision = revision,
    }
    ask
}

/// Whether somebody is to be told this, of what whoever sees everything is told.
fn is_shown(who: Who, words: &str) -> bool {
    match who {
        Who::Reader | Who::Writer | Who::Admin => true,
        Who::Picky => words.starts_with("open_"),
        Who::Stranger => false,
    }
}

/// What somebody is told that they must not be, but for what they have said themselves.
fn leaked(who: Who, text: &str, said: &str) -> Vec<&'static str> {
    let text = text.replace(said, "…");
    let forbidden: &[&str] = match who {
        Who::Reader | Who::Writer | Who::Admin => &[],
        Who::Picky => &["hidden_", "SECRET of hidden", "SECRET of alpha", "SECRET, changed,"],
        Who::Stranger => &["hidden_", "open_", SECRET],
    };
    forbidden.iter().copied().filter(|words| text.contains(words)).collect()
}

/// An answer without what was asked for, to compare it with another.
fn masked(answer: &Answer, ask: &Ask) -> String {
    let text = answer.text().replace(&ask.name, "…").replace(&ask.project, "…");
    text.replace(&format!("revision {}", ask.revision), "revision …")
}
