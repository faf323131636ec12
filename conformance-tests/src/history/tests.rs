//! The checker tested: histories that are right, and histories that are wrong in one way.

use fastrand::Rng;
use feast_registry_core::Contents;

use super::operation::{Answer, Call, History, NEVER, Operation};
use super::plan::{Board, Plan, Step, UNIVERSE, everything};
use super::text::{parse, parse_operation};
use super::verdict::{Order, check};

/// A history of these lines, where `x`, `y` and `z` stand for keys.
fn history(lines: &[&str]) -> History {
    let line = |line: &&str| {
        let line = line.replace("x=", "Entity:p:a=").replace("y=", "Entity:p:b=").replace("z=", "Entity:q:a=");
        line.replace("(x", "(Entity:p:a").replace(",y", ",Entity:p:b").replace("(y", "(Entity:p:b")
    };
    let lines: Vec<String> = lines.iter().map(line).collect();
    let history = parse(&lines.join("\n")).expect("lines of a history");
    let again = parse(&history.to_string()).expect("what is written can be read");
    assert_eq!(again, history);
    history
}

fn right(lines: &[&str]) {
    let history = history(lines);
    assert!(check(&history, Order::OfJournal).is_ok(), "{history}");
}

/// What is said of a history in which this promise is broken.
fn wrong(promise: &str, lines: &[&str]) -> String {
    let history = history(lines);
    let text = check(&history, Order::OfJournal).expect_err("the history is wrong").explained();
    assert!(text.starts_with(promise), "{text}");
    text
}

const WHOLE: &str = "a read is of one state, in which every commit is whole";
const ATOMIC: &str = "a commit is atomic";
const SERIALIZABLE: &str = "a commit is serializable";
const KEPT: &str = "what was acknowledged is there, and is seen by whoever asks later";
const ONCE: &str = "a commit happens once";
const REFUSED: &str = "a commit is refused only if";

#[test]
fn what_overlaps_may_have_either_order() {
    right(&[
        "c1 0 9 commit #1 do put:x=1 -> committed",
        "c2 0 9 commit #2 do put:x=2 -> committed",
        "c3 1 2 read keys(x) -> []",
        "c3 3 4 read keys(x) -> [x=2]",
        "c3 5 9 read keys(x) -> [x=1]",
    ]);
}

#[test]
fn updates_are_not_lost() {
    let lines = [
        "c1 0 1 commit #1 do put:x=1 put:y=1 -> committed",
        "c1 2 9 commit #2 if x=1 do put:x=2 -> committed",
        "c2 2 9 commit #3 if x=1 do put:x=3 -> committed",
        "c3 2 9 commit #4 if y=1 do put:y=4 -> committed",
        "c3 10 11 read keys(y) -> [y=4]",
    ];
    let text = wrong(SERIALIZABLE, &lines);
    for (line, is_shown) in [("#2", true), ("#3", true), ("#4", false), ("read", false), ("stored before them", true)] {
        assert_eq!(text.contains(line), is_shown, "{line} in\n{text}");
    }
    right(&[lines[0], lines[1], "c2 2 9 commit #3 if x=1 do put:x=3 -> conflict:Entity:p:a", lines[3], lines[4]]);
    right(&[lines[0], lines[1], "c2 2 9 commit #3 if x=2 do put:x=3 -> committed"]);
}

#[test]
fn decisions_are_not_made_by_what_is_no_longer_so() {
    let first = "c1 0 1 commit #1 do put:x=1 put:y=1 -> committed";
    let [one, other] =
        ["c1 2 9 commit #2 if x=1 y=1 do put:x=2 -> committed", "c2 2 9 commit #3 if x=1 y=1 do put:y=3 -> committed"];
    wrong(SERIALIZABLE, &[first, one, other]);
    right(&[first, one, "c2 10 11 commit #3 if x=2 y=1 do put:y=3 -> committed"]);
    // The same of what is absent.
    wrong(
        SERIALIZABLE,
        &["c1 2 9 commit #2 if y=- do put:x=2 -> committed", "c2 2 9 commit #3 if x=- do put:y=3 -> committed"],
    );
}

#[test]
fn batches_are_whole() {
    let batch = "c1 0 9 commit #1 do put:x=1 put:y=1 -> committed";
    wrong(WHOLE, &[batch, "c2 1 2 read keys(x,y) -> [x=1]"]);
    wrong(ATOMIC, &[batch, "c2 1 2 read keys(x) -> [x=1]", "c2 3 4 read keys(y) -> []"]);
    right(&[batch, "c2 1 2 read keys(x,y) -> []", "c2 3 4 read keys(x,y) -> [x=1,y=1]"]);
}

#[test]
fn lists_are_of_the_state_of_the_whole_read() {
    let moved = "c1 2 9 commit #2 do delete:Entity:p:a put:y=2 -> committed";
    let first = "c1 0 1 commit #1 do put:x=1 -> committed";
    wrong(WHOLE, &[first, moved, "c2 3 4 read keys(x) objects(Entity:p) -> [x=1] [y=2]"]);
    wrong(ATOMIC, &[first, moved, "c2 3 4 read keys(x) objects(Entity:p) -> [] []"]);
    right(&[first, moved, "c2 3 4 read keys(x) objects(Entity:p) -> [x=1] [x=1]"]);
    right(&[first, moved, "c2 3 4 read keys(x) objects(Entity:p) -> [] [y=2]"]);
}

#[test]
fn reads_see_what_was_acknowledged() {
    let writes = ["c1 0 1 commit #1 do put:x=1 -> committed", "c1 2 3 commit #2 do put:x=2 -> committed"];
    wrong(KEPT, &[writes[0], writes[1], "c2 4 5 read keys(x) -> [x=1]"]);
    right(&[writes[0], writes[1], "c2 3 5 read keys(x) -> [x=1]"]);
    // Lost for good.
    wrong(KEPT, &[writes[0], "c2 4 5 read keys(x) -> []", "c3 4 5 read keys(x) -> []"]);
}

#[test]
fn reads_do_not_go_back() {
    let write = "c1 0 9 commit #1 do put:x=1 -> committed";
    wrong("", &[write, "c2 1 2 read keys(x) -> [x=1]", "c3 3 4 read keys(x) -> []"]);
    right(&[write, "c2 1 4 read keys(x) -> [x=1]", "c3 3 4 read keys(x) -> []"]);
}

#[test]
fn what_is_pending_is_done_at_any_time_or_never() {
    let pending = "c1 0 - commit #1 do put:x=1 put:y=1 -> unknown";
    right(&[pending, "c2 1 2 read keys(x) -> []"]);
    right(&[pending, "c2 1 2 read keys(x,y) -> []", "c2 3 4 read keys(x,y) -> [x=1,y=1]"]);
    wrong("", &[pending, "c2 1 2 read keys(x) -> [x=1]", "c2 3 4 read keys(x) -> []"]);
    wrong(WHOLE, &[pending, "c2 1 2 read keys(x,y) -> [x=1]"]);
    // Not before it begins.
    wrong("", &["c2 1 2 read keys(x) -> [x=1]", "c1 3 - commit #1 do put:x=1 -> unknown"]);
    // Only if what it expects holds.
    wrong(SERIALIZABLE, &["c1 0 - commit #1 if x=7 do put:y=1 -> unknown", "c2 1 2 read keys(y) -> [y=1]"]);
    // A deletion is seen by what is gone.
    right(&[
        "c1 0 1 commit #1 do put:x=1 -> committed",
        "c1 2 - commit #2 do delete:Entity:p:a -> unknown",
        "c2 3 4 read keys(x) -> [x=1]",
        "c2 5 6 read keys(x) -> []",
    ]);
}

#[test]
fn what_is_given_up_for_certain_is_never_done() {
    let given_up = "c1 0 1 commit #1 do put:x=1 -> not_done";
    right(&[given_up, "c2 1 2 read keys(x) -> []"]);
    wrong("", &[given_up, "c2 1 2 read keys(x) -> [x=1]"]);
}

#[test]
fn a_commit_happens_once() {
    let writes = [
        "c1 0 1 commit #1 if x=- do put:x=1 -> committed",
        "c2 2 3 commit #2 do put:x=2 -> committed",
        "c1 4 5 commit #1 if x=- do put:x=1 -> committed",
    ];
    right(&[writes[0], writes[1], writes[2], "c3 6 7 read keys(x) -> [x=2]"]);
    wrong(ONCE, &[writes[0], writes[1], "c1 4 5 commit #1 do put:x=1 -> committed", "c3 6 7 read keys(x) -> [x=1]"]);
    // What was refused may be done later, and what was left may have been done before.
    right(&[
        "c1 0 1 commit #1 if x=2 do put:x=1 -> conflict:Entity:p:a",
        writes[1],
        "c1 4 5 commit #1 if x=2 do put:x=1 -> committed",
    ]);
    right(&[
        "c1 0 - commit #1 if x=- do put:x=1 -> unknown",
        writes[1],
        "c1 4 5 commit #1 if x=- do put:x=1 -> committed",
    ]);
    wrong(
        "",
        &[
            "c1 0 1 commit #1 if x=- do put:x=1 -> committed",
            "c1 4 5 commit #1 if x=- do put:x=1 -> conflict:Entity:p:a",
        ],
    );
}

#[test]
fn a_refusal_has_a_reason() {
    let write = "c1 0 1 commit #1 do put:x=1 -> committed";
    wrong(REFUSED, &[write, "c2 2 3 commit #2 if x=1 do put:y=2 -> conflict:Entity:p:a"]);
    wrong(REFUSED, &[write, "c2 2 3 commit #2 if x=7 y=- do put:y=2 -> conflict:Entity:p:b"]);
    right(&[write, "c2 2 3 commit #2 if x=7 y=- do put:y=2 -> conflict:Entity:p:a"]);
}

#[test]
fn the_journal_has_an_order_of_the_commits() {
    let commits = ["c1 0 9 commit #1 do put:x=1 -> committed@1", "c2 0 9 commit #2 do put:x=2 -> committed@2"];
    let read = "c1 10 11 read keys(x) -> [x=2]";
    right(&[commits[0], commits[1], read, "journal #1@1 #2@2"]);
    let order = "the order of the journal is that in which commits took place";
    let turned = ["c1 0 9 commit #1 do put:x=1 -> committed@2", "c2 0 9 commit #2 do put:x=2 -> committed@1"];
    wrong(order, &[turned[0], turned[1], read, "journal #2@1 #1@2"]);
    // In time, too.
    let early = "c2 10 11 commit #2 do put:y=2 -> committed@1";
    wrong(order, &[turned[0], early, "journal #2@1 #1@2"]);
    let each = "a commit is written with an entry of the journal";
    wrong(each, &[commits[0], commits[1], read, "journal #2@2"]);
    wrong(each, &[commits[0], commits[1], read, "journal #1@1 #2@3"]);
    wrong("the journal has each commit once", &[commits[0], "journal #1@1 #1@2"]);
    wrong("the journal has an entry for each commit", &[commits[0], "journal #1@1 #0@2"]);
    wrong("what is refused", &["c1 0 9 commit #1 if x=1 do put:x=1 -> conflict:Entity:p:a", "journal #1@1"]);
    wrong("a commit that has taken place is answered as it was", &[commits[0], turned[0], "journal #1@1"]);
    // Of two that have nothing in common, a reader may see the second one first.
    let apart = ["c1 0 9 commit #1 do put:x=1 -> committed@1", "c2 0 9 commit #2 do put:y=2 -> committed@2"];
    right(&[apart[0], apart[1], "c3 1 2 read keys(x,y) -> [y=2]", "journal #1@1 #2@2"]);
    // It says what became of what is pending.
    let pending = "c1 0 - commit #1 do put:x=1 -> unknown";
    right(&[pending, "c2 1 2 read keys(x) -> []", "journal #1@1"]);
    right(&[pending, "c2 1 2 read keys(x) -> []", "journal"]);
    wrong("", &[pending, "c2 1 2 read keys(x) -> [x=1]", "journal"]);
}

#[test]
fn lists_have_their_order() {
    let commits = ["c1 0 1 commit #1 do put:y=1 -> committed", "c1 2 3 commit #2 do put:x=2 -> committed"];
    let [stored, named] = ["c1 4 5 read objects(Entity:p) -> [y=1,x=2]", "c1 4 5 read objects(Entity:p) -> [x=2,y=1]"];
    right(&["history 0 in_order", commits[0], commits[1], stored]);
    wrong("", &["history 0 in_order", commits[0], commits[1], named]);
    right(&["history 0 by_name", commits[0], commits[1], named]);
    wrong("", &["history 0 by_name", commits[0], commits[1], stored]);
}

/// What a step does to what is stored, and its answer, as if nothing else went on.
fn done(step: Step, contents: &mut Contents, taken: &mut Vec<u32>) -> Call {
    match step {
        Step::Read(queries) => {
            let answer = |query| {
                let found = contents.read(&query).into_iter().map(|record| (record.key, record.value)).collect();
                (query, found)
            };
            Call::Read(queries.into_iter().map(answer).collect())
        }
        Step::Commit(sent, _) => {
            let refuses = sent.expectations.iter().find(|(key, expected)| !contents.is_as(key, expected));
            let answer = match refuses {
                _ if taken.contains(&sent.number) => Answer::Committed(None),
                Some((key, _)) => Answer::Conflict(key.clone()),
                None => {
                    sent.writes.iter().for_each(|write| drop(contents.write(write.clone())));
                    taken.push(sent.number);
                    Answer::Committed(None)
                }
            };
            Call::Commit(sent, answer)
        }
    }
}

/// A history that is right: the steps of plans one after the other, each with a span of time around its moment. Now and
/// then the answer of one is lost.
fn made(seed: u64, clients: u32, steps: usize) -> History {
    let mut rng = Rng::with_seed(seed);
    let board = Board::default();
    let mut plans: Vec<Plan> = (1..=clients).map(|client| Plan::new(seed, client, 0, board.clone())).collect();
    let mut free = vec![0; plans.len()];
    let (mut contents, mut taken, mut operations) = (Contents::default(), Vec::new(), Vec::new());
    for (number, moment) in (1..=steps).map(|number| (number, number as u64 * 100)) {
        if number % 40 == 1 {
            plans.iter_mut().for_each(|plan| plan.begin(number as u64));
            // All clients are idle.
            free.fill(moment - 1);
        }
        let client = rng.usize(..plans.len());
        let began = rng.u64(free[client].max(moment.saturating_sub(400))..moment);
        // Before the next moment, which may be this client's.
        let ended = rng.u64(moment..moment + 90);
        free[client] = ended + 1;
        let mut call = done(plans[client].step(), &mut contents, &mut taken);
        let mut operation = Operation { client: client as u32 + 1, began, ended, call: call.clone() };
        plans[client].learn(&operation);
        if let Call::Commit(_, answer) = &mut call
            && rng.u8(..30) == 0
        {
            *answer = Answer::Unknown;
            operation = Operation { ended: NEVER, call, ..operation };
        }
        operations.push(operation);
    }
    let call = done(Step::Read(everything()), &mut contents, &mut taken);
    let end = (steps as u64 + 10) * 100;
    operations.push(Operation { client: 0, began: end, ended: end + 1, call });
    History { seed, keeps_order: true, operations, journal: None }
}

#[test]
fn histories_made_right_are_right() {
    for seed in 0..30 {
        let history = made(seed, 8, 200);
        assert!(check(&history, Order::OfJournal).is_ok(), "seed {seed}:\n{history}");
    }
}

#[test]
fn thousands_of_operations_are_checked() {
    let history = made(1, 8, 4000);
    assert!(check(&history, Order::OfJournal).is_ok());
}

/// Changes one answer of a history. `None` if that cannot be told.
fn mutated(mut history: History, rng: &mut Rng) -> Option<History> {
    let index = rng.usize(..history.operations.len());
    match &mut history.operations[index].call {
        Call::Read(queries) => {
            let (_, found) = queries.iter_mut().find(|(_, found)| !found.is_empty())?;
            found.remove(rng.usize(..found.len()));
        }
        Call::Commit(_, Answer::NotDone | Answer::Unknown) => return None,
        // Nothing was written, and the answer is that it was.
        Call::Commit(_, answer @ Answer::Conflict(_)) => *answer = Answer::Committed(None),
        Call::Commit(sent, answer) => {
            let (key, _) = sent.expectations.first()?;
            *answer = Answer::Conflict(key.clone());
        }
    }
    Some(history)
}

#[test]
fn most_changes_of_an_answer_make_histories_wrong() {
    let mut rng = Rng::with_seed(7);
    let (mut changed, mut found) = (0, 0);
    for seed in 0..60 {
        if let Some(history) = mutated(made(seed, 4, 60), &mut rng) {
            changed += 1;
            found += usize::from(check(&history, Order::OfJournal).is_err());
        }
    }
    assert!(changed >= 30 && found * 10 >= changed * 8, "{found} of {changed} changes were found");
}

#[test]
fn every_operation_is_read_back_as_it_was_written() {
    for operation in made(3, 6, 400).operations {
        let line = operation.to_string();
        assert_eq!(parse_operation(&line), Some(operation), "{line}");
    }
    assert!(UNIVERSE.len() < 20, "few keys are what makes clients meet");
}
