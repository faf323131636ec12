//! Comparing what two registries have stored.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use bytes::Bytes;

use crate::backend::{Key, Page, Query, Record};
use crate::error::Result;
use crate::kind::Kind;
use crate::registry::Registry;

/// How many objects of a kind are read of each registry at once.
const PAGE: usize = 256;
/// Of how many views histories and user metadata are read at once.
const VIEWS: usize = 32;

/// What is stored under one key in two registries, and is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredDifference {
    /// The key.
    pub key: Key,
    /// What the one registry has; `None` when it has nothing there.
    pub one: Option<Bytes>,
    /// What the other has.
    pub other: Option<Bytes>,
}

/// A comparison of what two registries have stored, see [`Registry::contrast`].
pub struct Contrast {
    one: Side,
    other: Side,
    project: Option<String>,
    /// What is still to be compared.
    steps: VecDeque<Step>,
    /// Views whose histories and user metadata are still to be compared.
    views: BTreeSet<(Kind, String, String)>,
    found: VecDeque<StoredDifference>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Objects(Kind),
    Facts,
}

/// A registry, and how far it is read.
struct Side {
    registry: Registry,
    ahead: VecDeque<Record>,
    after: Option<(String, String)>,
    is_over: bool,
}

impl Registry {
    /// Compares what this registry has stored with what another has, in one project or in all: objects of every kind, histories,
    /// user metadata, and facts but for when something was last changed. Each is read page by page, and nothing of what is the
    /// same is held. What is written meanwhile may be seen or not.
    pub fn contrast(&self, other: &Registry, project: Option<&str>) -> Contrast {
        Contrast {
            one: Side::new(self),
            other: Side::new(other),
            project: project.map(str::to_owned),
            steps: Kind::ALL.iter().map(|kind| Step::Objects(*kind)).chain([Step::Facts]).collect(),
            views: BTreeSet::new(),
            found: VecDeque::new(),
        }
    }
}

impl Contrast {
    /// The next key of which the registries have not the same; `None` when there are no more. Kind after kind, each by project and
    /// name, and after some views their histories and user metadata. Dropping it while it waits leaves out nothing that the next
    /// call would not tell.
    ///
    /// # Errors
    /// What reading either registry says.
    pub async fn next(&mut self) -> Result<Option<StoredDifference>> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Ok(Some(found));
            }
            match self.steps.front().copied() {
                _ if self.views.len() >= VIEWS => self.compare_views().await?,
                Some(Step::Objects(kind)) => self.compare_objects(kind).await?,
                Some(Step::Facts) if self.views.is_empty() => self.compare_facts().await?,
                _ if !self.views.is_empty() => self.compare_views().await?,
                _ => return Ok(None),
            }
        }
    }

    /// Compares the next objects of a kind.
    async fn compare_objects(&mut self, kind: Kind) -> Result<()> {
        loop {
            self.one.read_on(kind, self.project.as_deref()).await?;
            self.other.read_on(kind, self.project.as_deref()).await?;
            let order = match (self.one.ahead.front(), self.other.ahead.front()) {
                (Some(one), Some(other)) => place(&one.key).cmp(&place(&other.key)),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let one = if order.is_le() { self.one.ahead.pop_front() } else { None };
            let other = if order.is_ge() { self.other.ahead.pop_front() } else { None };
            let Some(key) = one.as_ref().or(other.as_ref()).map(|record| record.key.clone()) else { break };
            if kind.is_view()
                && let Key::Object { project, name, .. } = &key
            {
                self.views.insert((kind, project.clone(), name.clone()));
            }
            self.tell(key, one.map(|record| record.value), other.map(|record| record.value));
            if !self.found.is_empty() || self.views.len() >= VIEWS {
                return Ok(());
            }
        }
        self.one.begin_anew();
        self.other.begin_anew();
        self.steps.pop_front();
        Ok(())
    }

    async fn compare_views(&mut self) -> Result<()> {
        let user_metadata = self.views.iter().map(|(kind, project, view)| Key::UserMetadata {
            kind: *kind,
            project: project.clone(),
            view: view.clone(),
        });
        let mut queries = vec![Query::Keys(user_metadata.collect())];
        // A view of another kind may have had the name before: it is one history.
        let names: BTreeSet<_> = self.views.iter().map(|(_, project, view)| (project, view)).collect();
        queries.extend(names.into_iter().map(|(project, view)| Query::Versions {
            project: project.clone(),
            view: view.clone(),
            latest_only: false,
        }));
        self.compare_answers(&queries).await?;
        self.views.clear();
        Ok(())
    }

    async fn compare_facts(&mut self) -> Result<()> {
        self.compare_answers(&[Query::Metadata { project: self.project.clone() }]).await?;
        self.steps.pop_front();
        Ok(())
    }

    async fn compare_answers(&mut self, queries: &[Query]) -> Result<()> {
        let mut both: BTreeMap<Key, (Option<Bytes>, Option<Bytes>)> = BTreeMap::new();
        for record in self.one.registry.read_all(queries).await?.into_iter().flatten() {
            both.entry(record.key).or_default().0 = Some(record.value);
        }
        for record in self.other.registry.read_all(queries).await?.into_iter().flatten() {
            both.entry(record.key).or_default().1 = Some(record.value);
        }
        both.retain(|key, _| !matches!(key, Key::Metadata { name, .. } if name == Key::LAST_UPDATED));
        both.into_iter().for_each(|(key, (one, other))| self.tell(key, one, other));
        Ok(())
    }

    fn tell(&mut self, key: Key, one: Option<Bytes>, other: Option<Bytes>) {
        if one != other {
            self.found.push_back(StoredDifference { key, one, other });
        }
    }
}

impl fmt::Debug for Contrast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let locations = (self.one.registry.location(), self.other.registry.location());
        f.debug_struct("Contrast").field("of", &locations).field("project", &self.project).finish_non_exhaustive()
    }
}

impl Side {
    fn new(registry: &Registry) -> Self {
        Self { registry: registry.clone(), ahead: VecDeque::new(), after: None, is_over: false }
    }

    /// Reads the next page, if none of the last one is left.
    async fn read_on(&mut self, kind: Kind, project: Option<&str>) -> Result<()> {
        if self.is_over || !self.ahead.is_empty() {
            return Ok(());
        }
        let page = match &self.after {
            Some((project, name)) => Page::after(project, name, PAGE),
            None => Page::first(PAGE),
        };
        let project = project.map(str::to_owned);
        let query = Query::Objects { kind, project, updated_since: None, page: Some(page) };
        self.ahead = self.registry.read_all(&[query]).await?.into_iter().flatten().collect();
        match self.ahead.back().and_then(|record| place(&record.key)) {
            Some((project, name)) => self.after = Some((project.to_owned(), name.to_owned())),
            None => self.is_over = true,
        }
        Ok(())
    }

    fn begin_anew(&mut self) {
        (self.after, self.is_over) = (None, false);
        self.ahead.clear();
    }
}

/// What objects of a kind are ordered by.
fn place(key: &Key) -> Option<(&str, &str)> {
    match key {
        Key::Object { project, name, .. } => Some((project, name)),
        _ => None,
    }
}
