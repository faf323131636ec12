//! A stream of what is committed, as a client is told it. It reads the journal when the client has read what it was told, so one
//! that is slow holds up nobody, and has no more in memory than what it is to be told next.

use feast_registry_core::{Revision, Watch, WatchEvent};
use futures_util::{Stream, StreamExt, stream};
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status};

use super::PIECE;
use super::convert::{Room, in_pieces};
use crate::callers::Credentials;
use crate::connections::{Goes, Going};
use crate::proto::history::{Commit, WatchResponse, watch_response::Event};
use crate::status::status;

/// After which revision a client may go on that was cut off, as a number: metadata of the error, whose text says it too.
const RESUME_AFTER: &str = "x-registry-resume-after";

/// A stream under way.
pub(super) struct Watching {
    watch: Watch,
    /// What was told whole.
    told: Option<Revision>,
    /// What a client who asked for no revision is told first.
    opening: Option<Revision>,
    /// What is left of a commit.
    pieces: Option<Box<dyn Iterator<Item = Commit> + Send>>,
    /// How many bytes a change is told with.
    room: Room,
}

/// What ends a stream.
pub(super) struct Ends {
    /// Its client's.
    pub(super) deadline: Option<Instant>,
    /// Its call's, which may be good no longer.
    pub(super) credentials: Option<Credentials>,
    /// Its connection goes.
    pub(super) going: Option<Going>,
}

impl Watching {
    /// What `watch` tells, which begins after a revision; first of all, that it begins after `opening`.
    pub(super) fn new(watch: Watch, begins: Option<Revision>, opening: Option<Revision>, room: Room) -> Self {
        Self { watch, told: begins, opening, pieces: None, room }
    }

    /// The stream, until something ends it.
    pub(super) fn until(self, ends: Ends) -> impl Stream<Item = Result<WatchResponse, Status>> + Send {
        stream::unfold(Some((self, ends)), move |state| async move {
            let (mut watching, mut ends) = state?;
            match watching.next(&mut ends).await {
                Ok(event) => Some((Ok(WatchResponse { event: Some(event) }), Some((watching, ends)))),
                Err(status) => {
                    let told = watching.told.map(Revision::number);
                    Some((Err(explained(status, told)), None))
                }
            }
        })
    }

    async fn next(&mut self, ends: &mut Ends) -> Result<Event, Status> {
        let goes = async {
            match &mut ends.going {
                Some(going) => going.goes().await,
                None => std::future::pending().await,
            }
        };
        let credentials_end = async {
            match &mut ends.credentials {
                Some(credentials) => credentials.end().await,
                None => std::future::pending().await,
            }
        };
        let at = async |moment: Option<Instant>| match moment {
            Some(moment) => sleep_until(moment).await,
            None => std::future::pending().await,
        };
        tokio::select! {
            biased;
            goes = goes => Err(Status::unavailable(match goes {
                Goes::Stopping => "this server is shutting down",
                Goes::Old => "this connection has been open for as long as any may be",
            })),
            () = credentials_end => Err(Status::unauthenticated("the credentials of this call have expired, or no longer say the same of you: call anew")),
            () = at(ends.deadline) => Err(Status::deadline_exceeded("the deadline of the call is over")),
            event = self.event() => event,
        }
    }

    /// The next event. Cancel-safe.
    async fn event(&mut self) -> Result<Event, Status> {
        if let Some(opening) = self.opening.take() {
            return Ok(Event::Bookmark(opening.number()));
        }
        loop {
            if let Some(commit) = self.pieces.as_mut().and_then(Iterator::next) {
                if !commit.has_more {
                    self.pieces = None;
                    self.told = Some(Revision::new(commit.revision));
                }
                return Ok(Event::Commit(commit));
            }
            match self.watch.next().await {
                Some(Ok(WatchEvent::Commit(entry))) => {
                    self.pieces = Some(Box::new(in_pieces(entry, 0, PIECE, self.room)));
                }
                Some(Ok(WatchEvent::Bookmark(revision))) => {
                    self.told = Some(revision);
                    return Ok(Event::Bookmark(revision.number()));
                }
                // What a later version of the registry tells besides.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(status("watch", error)),
                None => return Err(Status::internal("the watch has ended")),
            }
        }
    }
}

/// The same error, with what its client is to do.
pub(super) fn explained(mut status: Status, told: Option<u64>) -> Status {
    let text = match (status.code(), told) {
        (Code::OutOfRange, _) => {
            format!(
                "{}: watch from now on (without `after`), list what there is, and go on from there",
                status.message()
            )
        }
        // Nothing that is done again helps.
        (Code::InvalidArgument | Code::Unimplemented | Code::Internal | Code::DataLoss, _) => return status,
        (_, Some(told)) => format!("{}; resume after revision {told}", status.message()),
        (_, None) => format!("{}; watch anew", status.message()),
    };
    let mut metadata = std::mem::take(status.metadata_mut());
    if status.code() != Code::OutOfRange
        && let Some(told) = told
    {
        metadata.insert(RESUME_AFTER, told.into());
    }
    Status::with_metadata(status.code(), text, metadata)
}
