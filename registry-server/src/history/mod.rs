//! Our own service beside Feast's: the history of the registry (`feast_registry.v1.History`).

mod convert;
mod watching;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use feast_registry_core::access::Access;
use feast_registry_core::{
    CallOptions, JournalEntry, JournalFilter, JournalQuery, JournalRange, Registry, Result, Revision, Timestamp, Undo,
    UndoOptions,
};
use futures_util::Stream;
use tonic::{Request, Response, Status};

use self::convert::{Room, filter, in_pieces, kind, piece, planned, restoration, size_of, without_bytes};
use self::watching::{Ends, Watching};
use crate::call;
use crate::connections::Going;
use crate::proto::history::history_server::History as HistoryServer;
use crate::proto::history::{
    self, DiffRequest, DiffResponse, GetRequest, GetResponse, ListVersionsRequest, ListVersionsResponse, LogRequest,
    LogResponse, RestoreRequest, RevertRequest, UndoResponse, Version, WatchRequest, WatchResponse,
};
use crate::status::status;

/// How many commits a page of a log has unless something is said, and at the most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;
/// How many entries of the journal are read at once.
const READ_AT_ONCE: usize = 256;
/// How many entries of the journal one call looks through.
const LOOKED_THROUGH: usize = 20_000;
/// About how many bytes of changes a message has, unless a single one is larger: clients of gRPC take 4 MiB unless they are told
/// otherwise.
const PIECE: usize = 1024 * 1024;
/// How many bytes an answer has for what an undo changes, of which the images take a piece at the most; and for its remarks, as for
/// its refusals.
const PLANNED: usize = PIECE + PIECE / 2;
const REMARKED: usize = PIECE / 4;
/// By how much the clocks of those who commit differ, for all that a log knows: it goes on looking for so long, in seconds.
const CLOCKS_DIFFER: i64 = 24 * 3600;

/// The service over a registry.
pub(crate) struct History {
    registry: Registry,
    request_timeout: Duration,
    /// The largest message, in bytes.
    max_message_size: usize,
}

impl History {
    pub(crate) fn new(registry: Registry, request_timeout: Duration, max_message_size: usize) -> Self {
        Self { registry, request_timeout, max_message_size }
    }

    fn of_call<T>(&self, request: Request<T>) -> (Registry, T) {
        (self.registry.with_call(call::options(&request, self.request_timeout)), request.into_inner())
    }
}

type Reply<T> = std::result::Result<Response<T>, Status>;

fn reply<T>(call: &str, result: Result<T>) -> Reply<T> {
    result.map(Response::new).map_err(|error| status(call, error))
}

#[tonic::async_trait]
impl HistoryServer for History {
    async fn log(&self, request: Request<LogRequest>) -> Reply<LogResponse> {
        let (registry, request) = self.of_call(request);
        reply("log", log(&registry, request).await)
    }

    async fn get(&self, request: Request<GetRequest>) -> Reply<GetResponse> {
        let (registry, request) = self.of_call(request);
        let get = async {
            let entry = registry.journal_entry(Revision::new(request.revision)).await?;
            let skipped = usize::try_from(request.skip_changes).unwrap_or(usize::MAX);
            let room = Room::of_request(request.max_image_bytes, self.max_message_size);
            let commit = in_pieces(Arc::new(entry), skipped, PIECE, room).next();
            Ok(GetResponse { commit })
        };
        reply("get", get.await)
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Reply<DiffResponse> {
        let (registry, request) = self.of_call(request);
        let DiffRequest { after, until, filter: wanted, skip_changes, max_image_bytes } = request;
        let diff = async {
            let (wanted, after) = (filter(wanted)?, after.map(Revision::new));
            let until = match until {
                Some(until) => Some(Revision::new(until)),
                // A revision after the newest is not in the journal: that it comes after it is not what is wrong.
                None => newest(&registry).await?.filter(|newest| after.is_none_or(|after| after <= *newest)),
            };
            let changes = registry.changes_between(after, until, &wanted).await?;
            let skipped = usize::try_from(skip_changes).unwrap_or(usize::MAX).min(changes.len());
            let room = Room::of_request(max_image_bytes, self.max_message_size);
            let (changes, has_more) = piece(&changes[skipped..], PIECE, room);
            Ok(DiffResponse { changes, has_more, until: until.map(Revision::number) })
        };
        reply("diff", diff.await)
    }

    async fn revert(&self, request: Request<RevertRequest>) -> Reply<UndoResponse> {
        let (registry, RevertRequest { revision, options }) = self.of_call(request);
        let undo = Undo::Revert(Revision::new(revision));
        reply("revert", undone(&registry, &undo, options.unwrap_or_default()).await)
    }

    async fn restore(&self, request: Request<RestoreRequest>) -> Reply<UndoResponse> {
        let (registry, request) = self.of_call(request);
        let restore = async {
            let options = request.options.unwrap_or_default();
            undone(&registry, &restoration(request)?, options).await
        };
        reply("restore", restore.await)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Reply<Self::WatchStream> {
        let deadline = call::deadline(&request);
        let going: Option<Going> = request.extensions().get().cloned();
        // Each read of the stream has a time of its own: the stream has none.
        let options = CallOptions::new().with_timeout(self.request_timeout);
        let options = match request.extensions().get::<Access>() {
            Some(access) => options.with_access(access.clone()),
            None => options,
        };
        let registry = self.registry.with_call(options);
        let credentials = call::credentials(&request);
        let WatchRequest { after, filter: wanted, max_image_bytes } = request.into_inner();
        let begin = async {
            let wanted = filter(wanted)?;
            let begins = match after {
                Some(after) => Some(Revision::new(after)),
                None => newest(&registry).await?,
            };
            let watch = registry.watch(begins, wanted).await?;
            let opening = if after.is_none() { begins } else { None };
            Ok(Watching::new(watch, begins, opening, Room::of_request(max_image_bytes, self.max_message_size)))
        };
        let watching = begin.await.map_err(|error| watching::explained(status("watch", error), after))?;
        Ok(Response::new(Box::pin(watching.until(Ends { deadline, credentials, going }))))
    }

    async fn list_versions(&self, request: Request<ListVersionsRequest>) -> Reply<ListVersionsResponse> {
        let (registry, ListVersionsRequest { project, view }) = self.of_call(request);
        let list = async {
            let versions = registry.list_versions(&project, &view).await?.into_iter().map(|version| Version {
                number: version.number,
                version_id: version.version_id,
                created: Some(version.created_timestamp),
                description: version.description,
                kind: kind(version.view.kind).into(),
                view: version.view.bytes,
            });
            Ok(ListVersionsResponse { versions: versions.collect() })
        };
        reply("list_versions", list.await)
    }
}

async fn newest(registry: &Registry) -> Result<Option<Revision>> {
    let newest = registry.journal(&JournalQuery::before(None, 1).without_images()).await?;
    Ok(newest.first().map(|entry| entry.revision))
}

/// Does what is asked for, or says what that would be.
async fn undone(registry: &Registry, undo: &Undo, asked: history::UndoOptions) -> Result<UndoResponse> {
    let history::UndoOptions { force, with_materializations, dry_run } = asked;
    let options = UndoOptions::default().with_force(force).with_materializations(with_materializations);
    let plan = registry.plan_undo(undo, options).await?;
    let committed = if dry_run { None } else { registry.undo(&plan).await? };
    let (changes, more_changes) = planned(&plan.changes, PIECE, PLANNED);
    let (remarks, more_remarks) = convert::remarks(plan.remarks.iter().map(|(_, text)| text), REMARKED);
    let (refusals, more_refusals) = convert::remarks(plan.refusals.iter().map(|refusal| &refusal.reason), REMARKED);
    Ok(UndoResponse {
        committed: committed.map(Revision::number),
        revision: plan.revision.number(),
        changes,
        remarks,
        refusals,
        more_changes,
        more_remarks,
        more_refusals,
    })
}

async fn log(registry: &Registry, request: LogRequest) -> Result<LogResponse> {
    let filter = filter(request.filter)?;
    let page = match request.page_size as usize {
        0 => PAGE,
        size => size.min(LARGEST_PAGE),
    };
    let mut query = JournalQuery::before(request.before.map(Revision::new), READ_AT_ONCE).without_images();
    let (mut response, mut bytes, mut looked) = (LogResponse::default(), 0, 0);
    loop {
        let entries = registry.journal(&query).await?;
        let is_end = entries.len() < query.limit;
        for entry in entries {
            let revision = entry.revision;
            if request.since.is_some_and(|since| entry.at.seconds < since.seconds.saturating_sub(CLOCKS_DIFFER)) {
                return Ok(response);
            }
            // Of what its caller may not see anything of, the registry has left no change in it.
            let seen = (!entry.changes.is_empty()).then(|| Arc::new(entry));
            if let Some(entry) = seen.and_then(|entry| wanted(&filter, request.since, request.until, entry)) {
                let commit = without_bytes(&entry, PIECE);
                bytes += size_of(&commit);
                response.commits.push(commit);
            }
            looked += 1;
            if response.commits.len() >= page || bytes >= PIECE || looked >= LOOKED_THROUGH {
                response.next_before = Some(revision.number());
                return Ok(response);
            }
            query.range = JournalRange::Before(Some(revision));
        }
        if is_end {
            return Ok(response);
        }
    }
}

fn wanted(
    filter: &JournalFilter,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    entry: Arc<JournalEntry>,
) -> Option<Arc<JournalEntry>> {
    let at = (entry.at.seconds, entry.at.nanos);
    let is_since = since.is_none_or(|since| at >= (since.seconds, since.nanos));
    let is_until = until.is_none_or(|until| at <= (until.seconds, until.nanos));
    if is_since && is_until { filter.narrow(entry) } else { None }
}
