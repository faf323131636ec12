//! What users looked at last (Feast: `GET /metrics/recently_visited`).
//!
//! Feast writes each visit into the registry, so that every look at an object is a write. Here visits are kept in memory, by each
//! server for itself, and are gone when it ends.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use feast_registry_core::{Timestamp, words};
use serde_json::{Value, json};

use crate::paging::{self, Paging};

/// How many visits are kept for each user and project unless the configuration says otherwise, as by Feast.
pub(crate) const DEFAULT_LIMIT: usize = 100;

/// For how many users and projects visits are kept, taken together.
const MOST_LISTS: usize = 1000;
/// How many bytes all visits may have.
const MOST_BYTES: usize = 16 << 20;
/// What a visit, or a list of visits, has beside its texts: an estimate.
const OVERHEAD: usize = 128;
/// A visit with longer texts is not kept.
const LARGEST: usize = 4096;
/// No more visits are kept for one user and project, whatever the configuration says, so that these have room.
const MOST_VISITS: usize = 1000;

/// The kinds of object of which a look at one counts as a visit, as paths have them.
const VISITED: [&str; 6] =
    ["entities", "data_sources", "feature_views", "features", "feature_services", "saved_datasets"];

/// The object that a path leads to, if a look at it counts as a visit: its kind and its name. The path is decoded, and may have
/// the prefix `/api/v1` or not.
///
/// A feature has a view before its name, so none counts: Feast's patterns leave them out as well.
pub(crate) fn visited(path: &str) -> Option<(&'static str, &str)> {
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    let (object, name) = path.strip_prefix('/')?.split_once('/')?;
    let object = VISITED.into_iter().find(|kind| *kind == object)?;
    // The list of everything, and that of jobs, which Feast's web interface asks for every five seconds.
    let is_list = name == "all" || (object, name) == ("saved_datasets", "jobs");
    (!is_list && !name.is_empty() && !name.contains('/')).then_some((object, name))
}

/// A look at an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Visit {
    pub(crate) project: String,
    /// The path of the request, decoded.
    pub(crate) path: String,
    /// The kind of object, as the path has it.
    pub(crate) object: String,
    pub(crate) object_name: String,
    pub(crate) method: String,
    pub(crate) at: Timestamp,
}

impl Visit {
    fn size(&self) -> usize {
        OVERHEAD + self.project.len() + self.path.len() + self.object.len() + self.object_name.len() + self.method.len()
    }

    fn moment(&self) -> (i64, i32) {
        (self.at.seconds, self.at.nanos)
    }

    /// In which order two visits come by one of the fields that they are shown with.
    fn compare(&self, other: &Self, field: &str) -> Ordering {
        match field {
            "path" => self.path.cmp(&other.path),
            "timestamp" => self.moment().cmp(&other.moment()),
            "project" => self.project.cmp(&other.project),
            "object" => self.object.cmp(&other.object),
            "object_name" => self.object_name.cmp(&other.object_name),
            "method" => self.method.cmp(&other.method),
            _ => Ordering::Equal,
        }
    }

    fn body(&self, user: &str) -> Value {
        json!({
            "path": self.path,
            "timestamp": iso_format(&self.at),
            "project": self.project,
            "user": user,
            "object": self.object,
            "object_name": self.object_name,
            "method": self.method,
        })
    }
}

/// A moment as Python's `datetime.isoformat` writes it, with microseconds if there are any.
fn iso_format(at: &Timestamp) -> String {
    let second = words::second(at);
    let second = second.strip_suffix('Z').unwrap_or(&second);
    match at.nanos / 1000 {
        0 => format!("{second}+00:00"),
        micros => format!("{second}.{micros:06}+00:00"),
    }
}

/// Which visits are listed, and how.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Listing<'a> {
    /// Only those of one kind of object.
    pub(crate) object: Option<&'a str>,
    /// One of the fields that visits are shown with; any other sorts nothing.
    pub(crate) sort_by: Option<&'a str>,
    pub(crate) is_descending: bool,
    /// If one of these two is given, the other is 1 or 50; if none, there is one page with all.
    pub(crate) page: Option<u32>,
    pub(crate) limit: Option<u32>,
}

impl Listing<'_> {
    fn has(&self, visit: &Visit) -> bool {
        self.object.is_none_or(|object| object.is_empty() || object == visit.object)
    }
}

/// The last visits of each user, in each project.
#[derive(Debug)]
pub(crate) struct Visits {
    limit: usize,
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    /// By user, then by project.
    of_users: HashMap<String, HashMap<String, List>>,
    count: usize,
    bytes: usize,
    /// How many visits there have been.
    clock: u64,
}

/// What one user visited in one project, oldest first.
#[derive(Debug, Default)]
struct List {
    visits: VecDeque<Arc<Visit>>,
    bytes: usize,
    /// When the last one was added, by the clock of all.
    last: u64,
}

impl Visits {
    /// Keeps so many visits of each user in each project, 1,000 at the most.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.min(MOST_VISITS), lists: Mutex::default() }
    }

    /// Adds a visit. What was visited longest ago goes when there is too much: the oldest visits of this user in this project, or
    /// else all those of the user and the project that have had none for the longest time.
    pub(crate) fn note(&self, user: &str, visit: Visit) {
        if self.limit > 0 && visit.size() <= LARGEST {
            self.lock().add(user, visit, self.limit);
        }
    }

    /// The body of the answer about the visits of a user to one project, oldest first.
    pub(crate) fn of_project(&self, user: &str, project: &str, listing: &Listing<'_>) -> Value {
        let visits = self.lock().get(user, project).filter(|visit| listing.has(visit)).cloned().collect();
        Self::body(user, visits, listing)
    }

    /// The body of the answer about the visits of a user to these projects, newest first.
    pub(crate) fn of_projects(&self, user: &str, projects: &[String], listing: &Listing<'_>) -> Value {
        let lists = self.lock();
        let of_user = projects.iter().flat_map(|project| lists.get(user, project));
        let mut visits: Vec<_> = of_user.filter(|visit| listing.has(visit)).cloned().collect();
        drop(lists);
        visits.sort_by_key(|visit| std::cmp::Reverse(visit.moment()));
        // Feast keeps the other end of the list here: the oldest.
        visits.truncate(self.limit);
        Self::body(user, visits, listing)
    }

    fn body(user: &str, mut visits: Vec<Arc<Visit>>, listing: &Listing<'_>) -> Value {
        if let Some(field) = listing.sort_by {
            visits.sort_by(|one, other| {
                let order = one.compare(other, field);
                if listing.is_descending { order.reverse() } else { order }
            });
        }
        let bodies = |visits: &[Arc<Visit>]| visits.iter().map(|visit| visit.body(user)).collect::<Vec<_>>();
        if (listing.page, listing.limit) == (None, None) {
            return json!({ "visits": bodies(&visits), "pagination": { "totalCount": visits.len() } });
        }
        let paging = Paging { page: listing.page.unwrap_or(1), limit: listing.limit.unwrap_or(50) };
        let on_page = &visits[paging.range(visits.len())];
        json!({ "visits": bodies(on_page), "pagination": paging::to_json(&paging.metadata(visits.len())) })
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lists {
    fn get(&self, user: &str, project: &str) -> impl Iterator<Item = &Arc<Visit>> + use<'_> {
        self.of_users.get(user).and_then(|projects| projects.get(project)).into_iter().flat_map(|list| &list.visits)
    }

    fn add(&mut self, user: &str, visit: Visit, limit: usize) {
        self.clock += 1;
        if !self.of_users.contains_key(user) {
            self.of_users.insert(user.to_owned(), HashMap::new());
        }
        let Some(projects) = self.of_users.get_mut(user) else { return };
        if !projects.contains_key(&visit.project) {
            let bytes = OVERHEAD + user.len() + visit.project.len();
            projects.insert(visit.project.clone(), List { bytes, ..List::default() });
            self.count += 1;
            self.bytes += bytes;
        }
        let Some(list) = projects.get_mut(&visit.project) else { return };
        let before = list.bytes;
        list.last = self.clock;
        list.bytes += visit.size();
        list.visits.push_back(Arc::new(visit));
        while list.visits.len() > limit {
            list.bytes -= list.visits.pop_front().map_or(0, |oldest| oldest.size());
        }
        self.bytes = self.bytes - before + list.bytes;
        while self.count > MOST_LISTS || self.bytes > MOST_BYTES {
            self.remove_oldest();
        }
    }

    /// Forgets what one user visited in one project: the two that have had no visit for the longest time.
    fn remove_oldest(&mut self) {
        let lists = self.of_users.iter().flat_map(|(user, projects)| projects.iter().map(move |list| (user, list)));
        let oldest = lists.min_by_key(|(_, (_, list))| list.last);
        let Some((user, project)) = oldest.map(|(user, (project, _))| (user.clone(), project.clone())) else {
            (self.count, self.bytes) = (0, 0);
            return;
        };
        let Some(projects) = self.of_users.get_mut(&user) else { return };
        if let Some(list) = projects.remove(&project) {
            self.count -= 1;
            self.bytes -= list.bytes;
        }
        if projects.is_empty() {
            self.of_users.remove(&user);
        }
    }
}

#[cfg(test)]
mod tests;
