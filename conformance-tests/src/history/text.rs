//! Histories as text: one line for each operation, which people read in failures and the checker reads from files.

use std::fmt::{self, Write as _};

use bytes::Bytes;
use feast_registry_core::{Expected, Key, Kind, Page, Query, Write};

use super::operation::{Answer, Call, History, NEVER, Operation, Seen, Sent, number_of, record};

/// A key: `Entity:p:a`, `version:p:view:0`, `metadata:FeatureView:p:view`, `fact:p:project_uuid`.
pub(crate) fn key(key: &Key) -> String {
    match key {
        Key::Object { kind, project, name } => format!("{}:{project}:{name}", kind.message_name()),
        Key::Version { project, view, number } => format!("version:{project}:{view}:{number}"),
        Key::UserMetadata { kind, project, view } => format!("metadata:{}:{project}:{view}", kind.message_name()),
        Key::Metadata { project, name } => format!("fact:{project}:{name}"),
    }
}

/// What is under a key: the number of the commit that puts it, or else its bytes in hexadecimal.
fn value(key: &Key, value: &[u8]) -> String {
    match number_of(key, value) {
        Some(number) => number.to_string(),
        None => value.iter().fold("x".to_owned(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string");
            text
        }),
    }
}

/// What was found under a key: `Entity:p:a=173`.
pub(crate) fn seen((of, found): &Seen) -> String {
    format!("{}={}", key(of), value(of, found))
}

/// What is expected of a key: `Entity:p:a=173`, `=-` if nothing is to be there, `=*` if anything is.
pub(crate) fn expectation((of, expected): &(Key, Expected)) -> String {
    match expected {
        Expected::Absent => format!("{}=-", key(of)),
        Expected::Present => format!("{}=*", key(of)),
        Expected::Value(found) => format!("{}={}", key(of), value(of, found)),
    }
}

fn write(write: &Write) -> String {
    match write {
        Write::Put(put) => format!("put:{}={}", key(&put.key), value(&put.key, &put.value)),
        Write::Delete(of) => format!("delete:{}", key(of)),
        Write::DeleteVersions { project, view } => format!("delete_versions:{project}:{view}"),
        Write::DeleteProject { project } => format!("delete_project:{project}"),
    }
}

fn query(query: &Query) -> String {
    let of_project = |project: &Option<String>| project.as_ref().map(|of| format!(":{of}")).unwrap_or_default();
    match query {
        Query::Keys(keys) => format!("keys({})", keys.iter().map(key).collect::<Vec<_>>().join(",")),
        Query::Objects { kind, project, page: None, .. } => {
            format!("objects({}{})", kind.message_name(), of_project(project))
        }
        Query::Objects { kind, project, page: Some(page), .. } => {
            let (after_project, after_name) = page.after.clone().unwrap_or_default();
            let project = project.as_deref().unwrap_or_default();
            format!("page({}:{project}:{after_project}:{after_name}:{})", kind.message_name(), page.limit)
        }
        Query::Versions { project, view, latest_only: false } => format!("versions({project}:{view})"),
        Query::Versions { project, view, latest_only: true } => format!("latest({project}:{view})"),
        Query::Metadata { project } => format!("facts({})", project.as_deref().unwrap_or_default()),
    }
}

/// What was asked for, without the answer.
pub(crate) fn call(call: &Call) -> String {
    match call {
        Call::Read(queries) => {
            let queries: Vec<String> = queries.iter().map(|(of, _)| query(of)).collect();
            format!("read {}", queries.join(" "))
        }
        Call::Commit(sent, _) => {
            let mut text = format!("commit #{}", sent.number);
            for (word, parts) in [
                (" if", sent.expectations.iter().map(expectation).collect::<Vec<_>>()),
                (" do", sent.writes.iter().map(write).collect()),
            ] {
                if !parts.is_empty() {
                    write!(text, "{word} {}", parts.join(" ")).expect("writing to a string");
                }
            }
            text
        }
    }
}

/// What was answered.
pub(crate) fn answer(call: &Call) -> String {
    match call {
        Call::Read(queries) => {
            let list = |found: &[Seen]| format!("[{}]", found.iter().map(seen).collect::<Vec<_>>().join(","));
            queries.iter().map(|(_, found)| list(found)).collect::<Vec<_>>().join(" ")
        }
        Call::Commit(_, Answer::Committed(None)) => "committed".to_owned(),
        Call::Commit(_, Answer::Committed(Some(revision))) => format!("committed@{revision}"),
        Call::Commit(_, Answer::Conflict(of)) => format!("conflict:{}", key(of)),
        Call::Commit(_, Answer::NotDone) => "not_done".to_owned(),
        Call::Commit(_, Answer::Unknown) => "unknown".to_owned(),
    }
}

/// `c3 1200 1340 commit #173 if Entity:p:a=163 do put:Entity:p:a=173 -> committed@55`
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = if self.ended == NEVER { "-".to_owned() } else { self.ended.to_string() };
        write!(f, "c{} {} {ended} {} -> {}", self.client, self.began, call(&self.call), answer(&self.call))
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "history {} {}", self.seed, if self.keeps_order { "in_order" } else { "by_name" })?;
        for operation in &self.operations {
            writeln!(f, "{operation}")?;
        }
        if let Some(journal) = &self.journal {
            f.write_str("journal")?;
            for (number, revision) in journal {
                write!(f, " #{number}@{revision}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Reads a history that was written as text. `Err` is the line that is none.
pub(crate) fn parse(text: &str) -> Result<History, String> {
    let mut history = History { seed: 0, keeps_order: true, operations: Vec::new(), journal: None };
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        parse_line(&mut history, line).ok_or_else(|| format!("no line of a history: `{line}`"))?;
    }
    Ok(history)
}

fn parse_line(history: &mut History, line: &str) -> Option<()> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "history" => {
            let (seed, order) = rest.split_once(' ')?;
            (history.seed, history.keeps_order) = (seed.parse().ok()?, order == "in_order");
        }
        "journal" => {
            let entry = |entry: &str| {
                let (number, revision) = entry.strip_prefix('#')?.split_once('@')?;
                Some((number.parse().ok()?, revision.parse().ok()?))
            };
            history.journal = Some(rest.split_whitespace().map(entry).collect::<Option<_>>()?);
        }
        _ => history.operations.push(parse_operation(line)?),
    }
    Some(())
}

/// Reads one operation.
pub(crate) fn parse_operation(line: &str) -> Option<Operation> {
    let (asked, answered) = line.split_once(" -> ")?;
    let mut words = asked.split(' ');
    let client = words.next()?.strip_prefix('c')?.parse().ok()?;
    let began = words.next()?.parse().ok()?;
    let ended = match words.next()? {
        "-" => NEVER,
        ended => ended.parse().ok()?,
    };
    let call = match words.next()? {
        "read" => {
            let answers = answered.split(' ').map(parse_list);
            let queries = words.map(parse_query).zip(answers);
            Call::Read(queries.map(|(of, found)| Some((of?, found?))).collect::<Option<_>>()?)
        }
        "commit" => Call::Commit(parse_sent(words)?, parse_answer(answered)?),
        _ => return None,
    };
    Some(Operation { client, began, ended, call })
}

fn parse_sent<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Sent> {
    let number = words.next()?.strip_prefix('#')?.parse().ok()?;
    let mut sent = Sent { number, expectations: Vec::new(), writes: Vec::new() };
    let mut is_write = false;
    for word in words {
        match word {
            "if" => is_write = false,
            "do" => is_write = true,
            word if is_write => sent.writes.push(parse_write(word)?),
            word => {
                let (of, expected) = word.split_once('=')?;
                let of = parse_key(of)?;
                let expected = match expected {
                    "-" => Expected::Absent,
                    "*" => Expected::Present,
                    expected => Expected::Value(parse_value(&of, expected)?),
                };
                sent.expectations.push((of, expected));
            }
        }
    }
    Some(sent)
}

fn parse_answer(text: &str) -> Option<Answer> {
    let (word, rest) = text.split_once(['@', ':']).unwrap_or((text, ""));
    Some(match word {
        "committed" if rest.is_empty() => Answer::Committed(None),
        "committed" => Answer::Committed(Some(rest.parse().ok()?)),
        "conflict" => Answer::Conflict(parse_key(rest)?),
        "not_done" => Answer::NotDone,
        "unknown" => Answer::Unknown,
        _ => return None,
    })
}

fn parse_kind(text: &str) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| kind.message_name() == text)
}

fn parse_key(text: &str) -> Option<Key> {
    let parts: Vec<&str> = text.split(':').collect();
    Some(match parts[..] {
        ["version", project, view, number] => {
            Key::Version { project: project.to_owned(), view: view.to_owned(), number: number.parse().ok()? }
        }
        ["metadata", kind, project, view] => {
            Key::UserMetadata { kind: parse_kind(kind)?, project: project.to_owned(), view: view.to_owned() }
        }
        ["fact", project, name] => Key::metadata(project, name),
        [kind, project, name] => Key::object(parse_kind(kind)?, project, name),
        _ => return None,
    })
}

fn parse_value(of: &Key, text: &str) -> Option<Bytes> {
    match text.strip_prefix('x') {
        None => Some(record(of, text.parse().ok()?).value),
        Some(digits) => {
            let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok());
            bytes.collect::<Option<Vec<u8>>>().map(Bytes::from)
        }
    }
}

fn parse_seen(text: &str) -> Option<Seen> {
    let (of, found) = text.split_once('=')?;
    let of = parse_key(of)?;
    let found = parse_value(&of, found)?;
    Some((of, found))
}

fn parse_list(text: &str) -> Option<Vec<Seen>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    inner.split(',').filter(|item| !item.is_empty()).map(parse_seen).collect()
}

fn parse_write(text: &str) -> Option<Write> {
    let (word, rest) = text.split_once(':')?;
    Some(match word {
        "put" => {
            let (of, found) = parse_seen(rest)?;
            let at = record(&of, 0).updated;
            Write::Put(feast_registry_core::Record::new(of, found, at))
        }
        "delete" => Write::Delete(parse_key(rest)?),
        "delete_versions" => {
            let (project, view) = rest.split_once(':')?;
            Write::DeleteVersions { project: project.to_owned(), view: view.to_owned() }
        }
        "delete_project" => Write::DeleteProject { project: rest.to_owned() },
        _ => return None,
    })
}

fn parse_query(text: &str) -> Option<Query> {
    let (word, rest) = text.strip_suffix(')')?.split_once('(')?;
    let parts: Vec<&str> = rest.split(':').collect();
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Some(match (word, &parts[..]) {
        ("keys", _) => {
            let keys = rest.split(',').filter(|item| !item.is_empty());
            Query::Keys(keys.map(parse_key).collect::<Option<_>>()?)
        }
        ("objects", [kind]) => Query::objects(parse_kind(kind)?, None),
        ("objects", [kind, project]) => Query::objects(parse_kind(kind)?, Some(project)),
        ("page", [kind, project, after_project, after_name, limit]) => {
            let limit = limit.parse().ok()?;
            let page = match some(after_project) {
                None => Page::first(limit),
                Some(after) => Page::after(after, *after_name, limit),
            };
            Query::Objects { kind: parse_kind(kind)?, project: some(project), updated_since: None, page: Some(page) }
        }
        ("versions" | "latest", [project, view]) => {
            Query::Versions { project: (*project).to_owned(), view: (*view).to_owned(), latest_only: word == "latest" }
        }
        ("facts", [project]) => Query::Metadata { project: some(project) },
        _ => return None,
    })
}
