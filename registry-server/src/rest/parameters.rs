//! Parameters of a request: what a route declares, and what a request gives.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::error::{RestError, Result};
use crate::paging::Paging;
use crate::proto::{PaginationParams, SortingParams};

/// A parameter that a route has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    pub(crate) holds: Holds,
    pub(crate) is_required: bool,
    /// What it is if it is not given, for the documentation.
    pub(crate) default: Option<&'static str>,
    pub(crate) about: &'static str,
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Path,
    Query,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Text,
    /// Any number of texts: the parameter may be repeated.
    Texts,
    Flag,
    /// A whole number in these bounds.
    Number {
        least: i32,
        most: i32,
    },
    /// A number whose bounds the route checks, since Feast answers 400 there.
    AnyNumber,
    OneOf(&'static [&'static str]),
}

impl Parameter {
    const fn query(name: &'static str, holds: Holds, about: &'static str) -> Self {
        Self { name, place: Place::Query, holds, is_required: false, default: None, about }
    }

    pub(crate) const fn path(name: &'static str, about: &'static str) -> Self {
        Self { place: Place::Path, is_required: true, ..Self::query(name, Holds::Text, about) }
    }

    pub(crate) const fn text(name: &'static str, about: &'static str) -> Self {
        Self::query(name, Holds::Text, about)
    }

    pub(crate) const fn texts(name: &'static str, about: &'static str) -> Self {
        Self::query(name, Holds::Texts, about)
    }

    pub(crate) const fn flag(name: &'static str, default: &'static str, about: &'static str) -> Self {
        Self { default: Some(default), ..Self::query(name, Holds::Flag, about) }
    }

    pub(crate) const fn number(name: &'static str, (least, most): (i32, i32), about: &'static str) -> Self {
        Self::query(name, Holds::Number { least, most }, about)
    }

    pub(crate) const fn any_number(name: &'static str, about: &'static str) -> Self {
        Self::query(name, Holds::AnyNumber, about)
    }

    pub(crate) const fn one_of(name: &'static str, values: &'static [&'static str], about: &'static str) -> Self {
        Self::query(name, Holds::OneOf(values), about)
    }

    pub(crate) const fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    pub(crate) const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// Whether a value is one of those that it may have.
    fn check(&self, value: &str) -> Result<()> {
        let Self { name, holds, .. } = self;
        let why = match holds {
            Holds::Text | Holds::Texts => return Ok(()),
            Holds::Flag if flag(value).is_some() => return Ok(()),
            Holds::Flag => "it must be true or false".to_owned(),
            Holds::Number { least, most } => match number(value) {
                Some(number) if (*least..=*most).contains(&number) => return Ok(()),
                _ if *most == i32::MAX => format!("it must be a whole number, {least} or more"),
                _ => format!("it must be a whole number from {least} to {most}"),
            },
            Holds::AnyNumber if number(value).is_some() => return Ok(()),
            Holds::AnyNumber => "it must be a whole number".to_owned(),
            Holds::OneOf(values) if values.contains(&value) => return Ok(()),
            Holds::OneOf(values) => format!("it must be one of {}", values.join(", ")),
        };
        Err(RestError::invalid_request(format!("parameter `{name}`: {why}")))
    }
}

/// As pydantic reads one.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" => Some(true),
        "false" | "0" | "no" | "off" | "f" | "n" => Some(false),
        _ => None,
    }
}

/// As pydantic reads one: with blanks around it, a fraction of nothing, or `_` between digits. What is larger than any list is none.
fn number(text: &str) -> Option<i32> {
    let text = text.trim();
    let whole = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|digit| digit == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    let digits = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    let groups = digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    if groups { whole.replace('_', "").parse().ok() } else { None }
}

/// What a request gives for the parameters of its route, all of which have been checked.
#[derive(Debug, Default)]
pub(crate) struct Given(Vec<(Cow<'static, str>, String)>);

impl Given {
    /// Takes those from the path and those from the query. What stands in the path is not looked for in the query; there, what no
    /// parameter is named by is passed over, as by Feast's server.
    ///
    /// # Errors
    /// 422 for one that is missing, or is not as it must be.
    pub(crate) fn of(declared: &[&[Parameter]], path: Vec<(&'static str, String)>, query: &str) -> Result<Self> {
        let mut given: Vec<(Cow<'static, str>, String)> =
            path.into_iter().map(|(name, value)| (name.into(), value)).collect();
        for pair in query.split('&') {
            for (name, value) in form_urlencoded::parse(pair.as_bytes()) {
                let parameter = declared.iter().copied().flatten().find(|parameter| parameter.name == name);
                match parameter.map(|parameter| parameter.place) {
                    Some(Place::Path) => continue,
                    Some(Place::Query) if percent_encoding::percent_decode_str(pair).decode_utf8().is_err() => {
                        return Err(RestError::invalid_request(format!("parameter `{name}`: it is not UTF-8")));
                    }
                    _ => given.push((name.into_owned().into(), value.into_owned())),
                }
            }
        }
        let given = Self(given);
        for parameter in declared.iter().copied().flatten() {
            match parameter.holds {
                Holds::Texts => {}
                _ => match given.text(parameter.name) {
                    Some(value) => parameter.check(value)?,
                    None if parameter.is_required => {
                        let name = parameter.name;
                        return Err(RestError::invalid_request(format!("parameter `{name}` is missing")));
                    }
                    None => {}
                },
            }
        }
        Ok(given)
    }

    /// Refuses a parameter that is named almost as one of the route's: of a change that was meant to be a dry run, to pass it over would
    /// be to do it.
    ///
    /// # Errors
    /// 422 that names both.
    pub(crate) fn refuse_near_misses(&self, declared: &[&[Parameter]]) -> Result<()> {
        let plain = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
        for (given, _) in &self.0 {
            let near = |parameter: &&Parameter| {
                parameter.place == Place::Query && parameter.name != given && plain(parameter.name) == plain(given)
            };
            if let Some(Parameter { name, .. }) = declared.iter().copied().flatten().find(near) {
                return Err(RestError::invalid_request(format!(
                    "there is no parameter `{given}`; it is called `{name}`"
                )));
            }
        }
        Ok(())
    }

    /// The last value, as Feast's server takes it.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.texts(name).next_back()
    }

    /// The same, empty if it is not given.
    pub(crate) fn text_or_empty(&self, name: &str) -> &str {
        self.text(name).unwrap_or_default()
    }

    pub(crate) fn texts<'a, 'n>(&'a self, name: &'n str) -> impl DoubleEndedIterator<Item = &'a str> + use<'a, 'n> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        self.text(name).and_then(flag).unwrap_or(default)
    }

    pub(crate) fn number(&self, name: &str) -> Option<i32> {
        self.text(name).and_then(number)
    }

    pub(crate) fn project(&self) -> &str {
        self.text_or_empty("project")
    }

    pub(crate) fn allow_cache(&self) -> bool {
        self.flag_or("allow_cache", true)
    }

    pub(crate) fn includes_relationships(&self) -> bool {
        self.flag_or("include_relationships", false)
    }

    /// Tags, as `key:value`; what has no colon is passed over, as by Feast's server.
    pub(crate) fn tags(&self) -> BTreeMap<String, String> {
        let tags = self.texts("tags").filter_map(|tag| tag.split_once(':'));
        tags.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Which page is asked for: none unless both numbers are given.
    pub(crate) fn pagination(&self) -> Option<PaginationParams> {
        Some(PaginationParams { page: self.number("page")?, limit: self.number("limit")? })
    }

    /// The page of a list that is always paged.
    pub(crate) fn paging(&self) -> Paging {
        let positive = |name, otherwise| self.number(name).and_then(|given| given.try_into().ok()).unwrap_or(otherwise);
        Paging { page: positive("page", 1), limit: positive("limit", 50) }
    }

    pub(crate) fn sorting(&self) -> Option<SortingParams> {
        let sort_by = self.text("sort_by").filter(|by| !by.is_empty())?.to_owned();
        Some(SortingParams { sort_by, sort_order: self.text("sort_order").unwrap_or("asc").to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: &[Parameter] = &[
        Parameter::text("project", "").required(),
        Parameter::flag("allow_cache", "true", ""),
        Parameter::number("limit", (1, 100), ""),
        Parameter::one_of("sort_order", &["asc", "desc"], ""),
        Parameter::texts("tags", ""),
    ];

    fn given(query: &str) -> Result<Given> {
        Given::of(&[DECLARED], Vec::new(), query)
    }

    #[test]
    fn parameters_are_checked_as_they_are_declared() {
        for (query, is_valid) in [
            ("project=rides", true),
            ("project=", true),
            ("", false),
            ("limit=1", false),
            ("project=p&limit=100&sort_order=desc", true),
            ("project=p&limit=101", false),
            ("project=p&limit=0", false),
            ("project=p&limit=99999999999999999999", false),
            ("project=p&limit=abc", false),
            ("project=p&limit=%201.0", true),
            ("project=p&limit=1_0", true),
            ("project=p&limit=1_", false),
            ("project=p&limit=1.", false),
            ("project=p&limit=1e1", false),
            ("project=p&limit=", false),
            ("project=p&allow_cache=No", true),
            ("project=p&allow_cache=maybe", false),
            ("project=p&sort_order=ASC", false),
            ("project=p&whatever=%ff%00", true),
            ("project=%ff", false),
        ] {
            assert_eq!(given(query).is_ok(), is_valid, "{query}");
        }
    }

    /// Fault: `DELETE /entities/driver?name=zone` deleted the zone.
    #[test]
    fn what_stands_in_the_path_is_not_looked_for_in_the_query() {
        let declared: &[Parameter] = &[Parameter::path("name", ""), Parameter::text("project", "")];
        let path = vec![("name", "driver".to_owned())];
        let given = Given::of(&[declared], path, "name=zone&project=p").expect("valid");
        assert_eq!((given.text("name"), given.texts("name").count()), (Some("driver"), 1));
    }

    #[test]
    fn a_change_is_not_done_for_a_name_that_is_almost_that_of_a_parameter() {
        let declared: &[Parameter] = &[Parameter::flag("dry_run", "false", "")];
        for (query, is_refused) in
            [("dry-run=1", true), ("dryrun=1", true), ("Dry_Run=1", true), ("dry_run=1", false), ("dry=1", false)]
        {
            let given = Given::of(&[declared], Vec::new(), query).expect("valid");
            assert_eq!(given.refuse_near_misses(&[declared]).is_err(), is_refused, "{query}");
        }
    }

    #[test]
    fn what_is_given_twice_is_what_was_said_last_but_for_lists() {
        let given = given("project=a&project=b%20c&tags=x:1&tags=no&tags=y:2:3&allow_cache=off").expect("valid");
        assert_eq!(given.project(), "b c");
        assert!(!given.allow_cache());
        let tags: Vec<_> = given.tags().into_iter().collect();
        assert_eq!(tags, [("x".to_owned(), "1".to_owned()), ("y".to_owned(), "2:3".to_owned())]);
    }
}
