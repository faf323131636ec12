//! The audit log: who was allowed to do what, and who was not, as lines of JSON.
//!
//! The events have the shape of those of Feast's feature server (`feature_server.audit_logging`). What is to be done is noted before it
//! is done; what became of it is in the registry's journal. A thread of its own writes, so that a slow disk holds up nobody who need
//! not wait for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use feast_registry_core::access::{Access, Decided, Witness};
use feast_registry_core::{Error, ErrorKind, Kind, Result, Timestamp, async_trait};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::complaints::Complaint;
use crate::metrics;
use crate::peer::Peer;
use crate::protocol::Protocol;

/// How many events may wait to be written.
const WAITING: usize = 4096;

/// Where events are written. Cloning gives another handle on the same.
#[derive(Debug, Clone)]
pub struct AuditLog {
    events: SyncSender<Message>,
    is_required: bool,
    refusals: Arc<Refusals>,
}

enum Message {
    Event { line: Vec<u8>, written: Option<oneshot::Sender<io::Result<()>>> },
    Reopen,
}

/// How many calls without good credentials are written in a second.
const REFUSALS: u64 = 20;
/// As much of their paths is, in characters: theirs is any text.
const LONGEST_PATH: usize = 200;

/// How many refused calls were written in the last second, and how many were not since.
#[derive(Debug, Default)]
struct Refusals(Mutex<(Option<Instant>, u64, u64)>);

impl Refusals {
    /// Whether there is room for another one, and how many there was none for before it.
    fn room(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, written, unwritten) = &mut *state;
        if began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1)) {
            (*began, *written) = (Some(now), 0);
        }
        if *written >= REFUSALS {
            *unwritten += 1;
            return None;
        }
        *written += 1;
        Some(std::mem::take(unwritten))
    }
}

/// Where a call comes from and what it is, as events say it.
#[derive(Debug, Clone)]
pub(crate) struct CallSource {
    pub(crate) request_id: String,
    /// As `/feast.registry.RegistryServer/GetEntity`.
    pub(crate) path: String,
    pub(crate) peer: Peer,
    pub(crate) protocol: Protocol,
    pub(crate) is_encrypted: bool,
    /// How the caller said who they are.
    pub(crate) auth_type: &'static str,
}

/// What a call notes.
pub(crate) struct CallWitness {
    pub(crate) audit: AuditLog,
    pub(crate) source: CallSource,
}

impl AuditLog {
    /// Appends to a file, which is made if it is not there, readable by its owner alone; `-` is standard output. What is written has been
    /// handed to the system; it is not synced to the disk.
    ///
    /// With `is_required`, a write to the registry waits for its event, and fails when that cannot be written. Else events that cannot be
    /// written are lost, and the log and a metric say how many.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, is_required: bool) -> Result<Self> {
        let mut sink = Sink::open(path)?;
        let (events, received) = sync_channel(WAITING);
        metrics::audit_events_lost(0);
        let writer = std::thread::Builder::new().name("audit".to_owned());
        writer.spawn(move || sink.write_all(&received)).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the thread of the audit log cannot be started").with_source(error)
        })?;
        Ok(Self { events, is_required, refusals: Arc::default() })
    }

    /// Opens the file anew, after it was moved away.
    pub fn reopen(&self) {
        // If as many events wait as may, the file is the least of its problems.
        drop(self.events.try_send(Message::Reopen));
    }

    /// Completes when all that was noted before has been written, or lost. Cancel-safe.
    pub async fn flush(&self) {
        let (written, is_written) = oneshot::channel();
        let nothing = Message::Event { line: Vec::new(), written: Some(written) };
        if self.events.try_send(nothing).is_ok() {
            drop(is_written.await);
        }
    }

    /// Notes that somebody could not say who they are. Of a flood of them, only so many a second are written: nobody who has no credentials
    /// is to fill a disk. The next one says how many were not.
    pub(crate) fn note_refused(&self, source: &CallSource, why: &str) {
        let Some(unwritten) = self.refusals.room(Instant::now()) else { return };
        let path: String = source.path.chars().take(LONGEST_PATH).collect();
        let event = json!({
            "event_type": "registry.authentication",
            "timestamp": now(),
            "request_id": source.request_id,
            "principal": null,
            "source": in_json(source),
            "action": { "path": path },
            "resource": null,
            "outcome": "denied",
            "detail": why,
            "unwritten": unwritten,
        });
        self.send(line_of(&event), None);
    }

    fn send(&self, line: Vec<u8>, written: Option<oneshot::Sender<io::Result<()>>>) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.events.try_send(Message::Event { line, written })
        {
            lost(1, &"as many wait to be written as may");
        }
    }
}

#[async_trait]
impl Witness for CallWitness {
    async fn note(&self, access: &Access, decided: &[Decided]) -> Result<()> {
        let mut lines = Vec::new();
        for one in decided {
            lines.extend(line_of(&self.event(access, one)));
        }
        if !self.audit.is_required {
            self.audit.send(lines, None);
            return Ok(());
        }
        let (written, is_written) = oneshot::channel();
        self.audit.send(lines, Some(written));
        match is_written.await {
            Ok(Ok(())) => Ok(()),
            // The channel is dropped where the event was not taken.
            Ok(Err(_)) | Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                "the audit log cannot be written, and this server does nothing that is not in it; nothing was done: whoever runs it must see to that",
            )),
        }
    }
}

impl CallWitness {
    fn event(&self, access: &Access, decided: &Decided) -> Value {
        let identity = access.identity();
        let mut action = json!({ "path": self.source.path });
        if decided.is_dry {
            action["dry_run"] = json!(true);
        }
        json!({
            "event_type": "registry.authorization",
            "timestamp": now(),
            "request_id": self.source.request_id,
            "principal": {
                "username": identity.username,
                "roles": identity.roles,
                "groups": identity.groups,
                "namespaces": identity.namespaces,
                "auth_type": self.source.auth_type,
            },
            "source": in_json(&self.source),
            "action": action,
            "resource": {
                "type": type_of(decided.kind),
                "project": decided.project,
                "name": decided.name,
                "actions": decided.actions.iter().map(|action| action.name().to_lowercase()).collect::<Vec<_>>(),
            },
            "outcome": if decided.decision.is_allowed { "granted" } else { "denied" },
            "detail": decided.decision.reason.to_string(),
        })
    }
}

fn in_json(source: &CallSource) -> Value {
    let transport = match (source.protocol, source.is_encrypted) {
        (Protocol::Grpc, false) => "grpc",
        (Protocol::Grpc, true) => "grpc+tls",
        (Protocol::Rest, false) => "http",
        (Protocol::Rest, true) => "https",
    };
    match source.peer {
        Peer::Address(_) => json!({ "ip": source.peer.to_string(), "transport": transport }),
        Peer::User(uid) => json!({ "uid": uid, "transport": format!("{transport}+unix") }),
    }
}

fn type_of(kind: Kind) -> &'static str {
    kind.message_name()
}

fn now() -> String {
    Timestamp::from(std::time::SystemTime::now()).to_string()
}

/// Names are anybody's, so each event is one line by way of JSON's own escapes.
fn line_of(event: &Value) -> Vec<u8> {
    let mut line = event.to_string().into_bytes();
    line.push(b'\n');
    line
}

fn lost(events: u64, why: &dyn std::fmt::Display) {
    static LOST: Complaint = Complaint::new();
    metrics::audit_events_lost(events);
    LOST.say(|more| tracing::error!("an event of the audit log is lost: {why}{more}"));
}

/// What events are written to.
enum Sink {
    Stdout,
    File { path: PathBuf, file: File, is_torn: bool },
}

impl Sink {
    fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Sink::Stdout);
        }
        let file = open(path).map_err(|error| {
            let text = format!("the audit log {} cannot be opened to be written: {error}", path.display());
            Error::new(ErrorKind::InvalidConfig, text).with_source(error)
        })?;
        Ok(Sink::File { path: path.to_owned(), file, is_torn: false })
    }

    /// Writes events until nobody can send any more.
    fn write_all(&mut self, events: &Receiver<Message>) {
        for message in events {
            match message {
                Message::Reopen => self.reopen(),
                Message::Event { line, written } => {
                    let done = self.write(&line);
                    if let Err(error) = &done {
                        lost(1, error);
                    }
                    if let Some(written) = written {
                        // Who waited may have left.
                        drop(written.send(done));
                    }
                }
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(line)?;
                stdout.flush()
            }
            Sink::File { file, is_torn, .. } => {
                // What was cut off, as on a full disk, must not take the next event with it.
                if std::mem::take(is_torn) && !line.is_empty() {
                    *is_torn = true;
                    file.write_all(b"\n")?;
                    *is_torn = false;
                }
                file.write_all(line).inspect_err(|_| *is_torn = true)
            }
        }
    }

    fn reopen(&mut self) {
        let Sink::File { path, file, is_torn } = self else { return };
        match open(path) {
            Ok(opened) => (*file, *is_torn) = (opened, false),
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "the audit log cannot be opened anew; the old file is written on");
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A pipe would have this wait for whoever reads it.
    #[cfg(unix)]
    if std::fs::metadata(path).is_ok_and(|file| std::os::unix::fs::FileTypeExt::is_fifo(&file.file_type())) {
        return Err(io::Error::other("it is a pipe; write to a file, or to standard output with `-`"));
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A witness for a call.
pub(crate) fn witness(audit: &AuditLog, source: CallSource) -> Arc<dyn Witness> {
    Arc::new(CallWitness { audit: audit.clone(), source })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use feast_registry_core::access::{AccessRules, Identity, Unprotected};
    use feast_registry_core::proto::core::{Entity, EntitySpecV2};
    use feast_registry_core::{CallOptions, Freshness, MemoryBackend, Registry, RegistryOptions};

    use super::*;

    fn source() -> CallSource {
        CallSource {
            request_id: "one".to_owned(),
            path: "/feast.registry.RegistryServer/ApplyEntity".to_owned(),
            peer: Peer::Address([10, 0, 0, 7].into()),
            protocol: Protocol::Grpc,
            is_encrypted: true,
            auth_type: "oidc",
        }
    }

    async fn registry(audit: &AuditLog) -> Registry {
        let registry =
            Registry::open(Arc::new(MemoryBackend::new()), RegistryOptions::default()).await.expect("a registry");
        let rules = Arc::new(AccessRules::default().with_unprotected(Unprotected::Deny));
        let identity = Arc::new(Identity::new("ann\nroot").with_roles(["reader"]));
        let access = Access::new(identity, rules).with_witness(witness(audit, source()));
        registry.with_call(CallOptions::new().with_access(access))
    }

    fn entity(name: &str) -> Entity {
        Entity { spec: Some(EntitySpecV2 { name: name.into(), ..Default::default() }), meta: None }
    }

    fn events(path: &Path) -> Vec<Value> {
        let text = fs::read_to_string(path).expect("a log");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[tokio::test]
    async fn what_is_granted_and_denied_is_a_line_each() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let audit = AuditLog::open(&path, true).expect("a log");
        let ann = registry(&audit).await;
        ann.apply("rides", &entity("driver")).await.expect("it is theirs");
        ann.with_call(CallOptions::new()).apply("other", &entity("driver")).await.expect("nobody is judged");
        ann.get(Kind::Entity, "other", "driver", Freshness::Cached).await.expect_err("it is not theirs");
        let events = events(&path);
        assert_eq!(events.len(), 3, "{events:?}");
        let of = |pointer: &str| {
            events.iter().map(|event| event.pointer(pointer).cloned().unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(of("/outcome"), ["granted", "granted", "denied"]);
        assert_eq!(of("/resource/type"), ["Project", "Entity", "Entity"]);
        assert_eq!(of("/resource/project"), ["rides", "rides", "other"]);
        assert_eq!(of("/resource/actions"), [json!(["create"]), json!(["create"]), json!(["describe"])]);
        assert_eq!(of("/principal/username"), ["ann\nroot"; 3]);
        assert_eq!(of("/source/ip"), ["10.0.0.7"; 3]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        }
        // After it was moved away.
        fs::rename(&path, folder.path().join("old")).expect("moved");
        audit.reopen();
        ann.apply("rides", &entity("rider")).await.expect("it is theirs");
        assert_eq!(self::events(&path).len(), 1);
    }

    #[tokio::test]
    async fn nobody_without_credentials_fills_the_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let audit = AuditLog::open(&path, false).expect("a log");
        let mut source = source();
        source.path = "/x".repeat(5000);
        for _ in 0..1000 {
            audit.note_refused(&source, "it has no bearer token");
        }
        audit.flush().await;
        let first = events(&path);
        assert!((20..=60).contains(&first.len()), "{}", first.len());
        assert!(fs::metadata(&path).expect("a file").len() < 60 * 1000);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        audit.note_refused(&source, "it has no bearer token");
        audit.flush().await;
        let unwritten: u64 = events(&path).iter().filter_map(|event| event["unwritten"].as_u64()).sum();
        assert_eq!(unwritten, 1001 - events(&path).len() as u64, "none goes uncounted");
    }

    /// What a full disk has cut off is a line of its own.
    #[test]
    fn an_event_after_one_that_was_cut_off_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        fs::write(&path, "{\"event_ty").expect("written");
        let file = open(&path).expect("a file");
        let mut sink = Sink::File { path: path.clone(), file, is_torn: true };
        sink.write(b"{}\n").expect("written");
        sink.write(b"{}\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("a log"), "{\"event_ty\n{}\n{}\n");
        let full = File::options().write(true).open("/dev/full").expect("a file");
        let mut sink = Sink::File { path, file: full, is_torn: false };
        sink.write(b"{}\n").expect_err("there is no room");
        assert!(matches!(sink, Sink::File { is_torn: true, .. }));
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_stops_writes_if_it_is_required() {
        let full = Path::new("/dev/full");
        for (is_required, is_done) in [(true, false), (false, true)] {
            let audit = AuditLog::open(full, is_required).expect("it can be opened");
            let ann = registry(&audit).await;
            let done = ann.apply("rides", &entity("driver")).await;
            assert_eq!(done.is_ok(), is_done, "{done:?}");
            let found = ann.with_call(CallOptions::new()).get(Kind::Entity, "rides", "driver", Freshness::Stored).await;
            assert_eq!(found.is_ok(), is_done);
        }
        AuditLog::open(Path::new("/nowhere/audit.jsonl"), false).expect_err("there is no such folder");
    }
}
