//! Search over all that projects hold (Feast: `GET /search`).
//!
//! What is looked at of an object is read from its bytes; what is not on the page that is wanted is not rendered. The cost is
//! that of reading the objects once and of sorting what was found, whatever the query is.

mod matching;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use feast_registry_core::{Feature, Kind, Object, Result, wire};
use serde_json::{Map, Value, json};

use self::matching::{Needle, Score};
use super::resources::{Described, FEATURE_VIEWS, Fields, Resources, spec};
use crate::paging::{self, Paging};

/// What is searched for, and which part of what is found is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    query: String,
    tags: BTreeMap<String, String>,
    sort_by: SortBy,
    is_descending: bool,
    paging: Paging,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SortBy {
    MatchScore,
    Name,
    Type,
}

/// The parameters of a request that say how what is found is sorted and divided, as they were given.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Given<'a> {
    pub(crate) sort_by: Option<&'a str>,
    pub(crate) sort_order: Option<&'a str>,
    pub(crate) page: Option<i32>,
    pub(crate) limit: Option<i32>,
}

/// The largest page.
const MOST: u32 = 100;

impl Search {
    /// Checks the parameters. Only objects that have all of `tags` are found; features are found whatever tags their views have.
    ///
    /// # Errors
    /// What Feast's server says about the first parameter that is not as it must be, with status 400.
    pub(crate) fn new(query: String, tags: BTreeMap<String, String>, given: Given<'_>) -> Result<Self, String> {
        let sort_by = match given.sort_by.unwrap_or_default() {
            "" | "match_score" => SortBy::MatchScore,
            "name" => SortBy::Name,
            "type" => SortBy::Type,
            other => {
                let options = "['match_score', 'name', 'type']";
                return Err(format!("Invalid sort_by parameter: '{other}'. Valid options are: {options}"));
            }
        };
        let is_descending = match given.sort_order.unwrap_or_default() {
            "" | "desc" => true,
            "asc" => false,
            other => {
                return Err(format!("Invalid sort_order parameter: '{other}'. Valid options are: ['asc', 'desc']"));
            }
        };
        let page = at_least_one("page", given.page.unwrap_or(1))?;
        let limit = at_least_one("limit", given.limit.unwrap_or(50))?;
        if limit > MOST {
            return Err(format!("Invalid limit parameter: '{limit}'. Must be less than or equal to {MOST}"));
        }
        Ok(Self { query, tags, sort_by, is_descending, paging: Paging { page, limit } })
    }
}

fn at_least_one(name: &str, number: i32) -> Result<u32, String> {
    let too_small = || format!("Invalid {name} parameter: '{number}'. Must be greater than or equal to 1");
    u32::try_from(number).ok().filter(|number| *number > 0).ok_or_else(too_small)
}

/// Which of the known projects are searched, each once: those that are asked for, or all of them when none is; and what the
/// answer says about those that are not there.
pub(crate) fn projects_to_search(known: &[String], asked: &[String]) -> (Vec<String>, Vec<String>) {
    if known.is_empty() {
        return (Vec::new(), vec!["No projects found".to_owned()]);
    }
    let known_names: HashSet<&str> = known.iter().map(String::as_str).collect();
    let asked: Vec<&String> = asked.iter().filter(|name| !name.trim().is_empty()).collect();
    let (there, missing): (Vec<_>, Vec<_>) = asked.iter().partition(|name| known_names.contains(name.as_str()));
    let wanted = if asked.is_empty() { known.iter().collect() } else { there };
    let mut seen = HashSet::new();
    let projects = wanted.into_iter().filter(|name| seen.insert(name.as_str())).cloned().collect();
    if missing.is_empty() {
        return (projects, Vec::new());
    }
    let missing: Vec<&str> = missing.into_iter().map(String::as_str).collect();
    (projects, vec![format!("Following projects do not exist: {}", missing.join(", "))])
}

/// The body of the answer: what is found in projects, in their order. `errors` are those that the caller knows of; what cannot
/// be read is passed over and adds its own.
pub(crate) fn body(search: &Search, projects: &[Resources], mut errors: Vec<String>) -> Value {
    let names: Vec<&str> = projects.iter().map(|project| project.name.as_str()).collect();
    if projects.is_empty() {
        return answer(search, &names, Vec::new(), json!({}), &errors);
    }
    let sources: Vec<Vec<Source<'_>>> = projects
        .iter()
        .map(|project| project.objects.iter().map(|object| Source::of(project, object)).collect())
        .collect();
    let mut finder = Finder::new(search);
    for (project, sources) in projects.iter().zip(&sources) {
        for section in &SECTIONS {
            if !finder.search_section(section, sources) {
                errors.push(format!("Error searching {} in project '{}'", section.plural, project.name));
            }
        }
    }
    finder.sort();
    let page = search.paging.range(finder.hits.len());
    let metadata = paging::to_json(&search.paging.metadata(finder.hits.len()));
    let hits: Vec<Hit<'_>> = finder.hits.drain(..).take(page.end).skip(page.start).collect();
    let results = hits.iter().filter_map(|hit| finder.render(hit).ok()).collect();
    answer(search, &names, results, metadata, &errors)
}

fn answer(search: &Search, projects: &[&str], results: Vec<Value>, pagination: Value, errors: &[String]) -> Value {
    json!({
        "query": search.query,
        "projects_searched": projects,
        "results": results,
        "pagination": pagination,
        "errors": errors,
    })
}

/// Results of one type, from objects of some kinds.
struct Section {
    result_type: &'static str,
    kinds: &'static [Kind],
    /// What the result calls the view that it is of, if it is a part of one.
    view: Option<&'static str>,
    /// What they are called in errors.
    plural: &'static str,
}

const fn section(result_type: &'static str, kinds: &'static [Kind], plural: &'static str) -> Section {
    Section { result_type, kinds, view: None, plural }
}

/// In the order in which results come that are equal otherwise. The labels of label views are among the features, too.
static SECTIONS: [Section; 8] = [
    section("entity", &[Kind::Entity], "entities"),
    section("dataSource", &[Kind::DataSource], "data sources"),
    section("featureView", &FEATURE_VIEWS, "feature views"),
    section("labelView", &[Kind::LabelView], "label views"),
    Section { view: Some("featureView"), ..section("feature", Kind::VIEWS, "features") },
    Section { view: Some("labelView"), ..section("label", &[Kind::LabelView], "labels") },
    section("featureService", &[Kind::FeatureService], "feature services"),
    section("savedDataset", &[Kind::SavedDataset], "saved datasets"),
];

/// An object with its definition.
struct Source<'a> {
    project: &'a str,
    object: &'a Object,
    spec: Result<Cow<'a, [u8]>>,
}

impl<'a> Source<'a> {
    fn of(project: &'a Resources, object: &'a Object) -> Self {
        Self { project: &project.name, object, spec: spec(object) }
    }

    fn spec(&self) -> Result<&[u8]> {
        self.spec.as_deref().map_err(Clone::clone)
    }
}

/// Something that was found: where its description stands, and what it is sorted by.
#[derive(Clone, Copy)]
struct Hit<'a> {
    section: &'a Section,
    source: &'a Source<'a>,
    /// The message that describes it: the object's definition, or the specification of one of its features.
    message: &'a [u8],
    name: &'a str,
    score: Score,
}

struct Finder<'a> {
    search: &'a Search,
    needle: Needle,
    hits: Vec<Hit<'a>>,
    /// What is read at the moment.
    described: Described<'a>,
}

impl<'a> Finder<'a> {
    fn new(search: &'a Search) -> Self {
        Self { search, needle: Needle::new(&search.query), hits: Vec::new(), described: Described::default() }
    }

    /// Searches what a project has for one type of result. `false` when something could not be read.
    fn search_section(&mut self, section: &'a Section, sources: &'a [Source<'a>]) -> bool {
        let mut is_sound = true;
        let start = self.hits.len();
        let mut types = Vec::new();
        for &kind in section.kinds {
            for source in sources.iter().filter(|source| source.object.kind == kind) {
                let searched = match section.view {
                    None => self.search_object(section, source),
                    Some(_) => self.search_features(section, source, &mut types),
                };
                is_sound &= searched.is_ok();
            }
        }
        if !types.is_empty() {
            self.sort_features(start, types);
        }
        is_sound
    }

    fn search_object(&mut self, section: &'a Section, source: &'a Source<'a>) -> Result<()> {
        let message = source.spec()?;
        self.described.read(message, Fields::of(source.object.kind))?;
        let wanted = &self.search.tags;
        let found = self.described.tags.iter().filter(|(tag, value)| wanted.get(*tag).is_some_and(|of| of == value));
        if found.count() == wanted.len() {
            self.note_if_matched(section, source, message);
        }
        Ok(())
    }

    /// Searches the features of a view. If types are to be sorted by, that of each hit comes into `types`.
    fn search_features(&mut self, section: &'a Section, view: &'a Source<'a>, types: &mut Vec<String>) -> Result<()> {
        let features = view.object.kind.layout().features;
        // Feast sorts features by their `type` too, which is that of their values.
        let of_values = if self.search.sort_by == SortBy::Type { Feature::of_view(view.object)? } else { Vec::new() };
        let mut of_values = of_values.into_iter().map(|feature| feature.type_name.to_lowercase());
        for field in wire::fields(view.spec()?) {
            let field = field?;
            if Some(field.number) != features {
                continue;
            }
            let of_value = of_values.next().unwrap_or_default();
            self.described.read(field.content, Fields::OF_FEATURE)?;
            self.described.tags.retain(|(tag, _)| !Feature::TYPE_TAGS.contains(tag));
            if self.note_if_matched(section, view, field.content) && self.search.sort_by == SortBy::Type {
                types.push(of_value);
            }
        }
        Ok(())
    }

    fn note_if_matched(&mut self, section: &'a Section, source: &'a Source<'a>, message: &'a [u8]) -> bool {
        let score = self.needle.score(&self.described);
        let hit = score.map(|score| Hit { section, source, message, name: self.described.name, score });
        self.hits.extend(hit);
        hit.is_some()
    }

    /// Sorts the hits from `start` on by the types of their values, so that equal ones keep their order.
    fn sort_features(&mut self, start: usize, types: Vec<String>) {
        let mut typed: Vec<(String, Hit<'a>)> = types.into_iter().zip(self.hits.drain(start..)).collect();
        let is_descending = self.search.is_descending;
        typed.sort_by(|(one, _), (other, _)| directed(one.cmp(other), is_descending));
        self.hits.extend(typed.into_iter().map(|(_, hit)| hit));
    }

    /// Sorts what was found, so that what is equal keeps its order in both directions.
    fn sort(&mut self) {
        let Search { sort_by, is_descending, .. } = *self.search;
        self.hits.sort_by(|one, other| {
            let order = match sort_by {
                SortBy::MatchScore => one.score.value().total_cmp(&other.score.value()),
                SortBy::Name => one.name.cmp(other.name),
                SortBy::Type => one.section.result_type.cmp(other.section.result_type),
            };
            directed(order, is_descending)
        });
    }

    fn render(&mut self, hit: &Hit<'a>) -> Result<Value> {
        let Hit { section, source, message, score, .. } = *hit;
        let kind = source.object.kind;
        let is_part = section.view.is_some();
        self.described.read(message, if is_part { Fields::OF_FEATURE } else { Fields::of(kind) })?;
        let mut result = Map::new();
        let mut put = |name: &str, value: Value| drop(result.insert(name.to_owned(), value));
        put("type", section.result_type.into());
        put("name", self.described.name.into());
        put("description", self.described.description.into());
        put("project", source.project.into());
        if let (Some(view), Some(name)) = (section.view, kind.layout().name) {
            put(view, wire::text(source.spec()?, name)?.into());
        }
        let mut matched = Map::new();
        for (tag, value) in &self.described.tags {
            if !(is_part && Feature::TYPE_TAGS.contains(tag)) && self.needle.matches_tag(tag, value) {
                matched.insert((*tag).to_owned(), (*value).into());
            }
        }
        put("matched_tags", matched.into());
        match score {
            Score::Unscored => {}
            Score::Exact(score) => put("match_score", score.into()),
            Score::Similar(score) => put("match_score", score.into()),
        }
        Ok(result.into())
    }
}

fn directed(order: Ordering, is_descending: bool) -> Ordering {
    if is_descending { order.reverse() } else { order }
}

#[cfg(test)]
mod tests;
