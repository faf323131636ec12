//! What to say about a name that is not there: which one may have been meant.

use anyhow::{Error, Result, anyhow};
use feast_registry::{ErrorKind, Freshness, Kind, ListFilter, Registry};

use super::text;

/// Adds to an error about a missing object what there is instead: that name as another kind, or a similar one.
pub(super) async fn explain(
    error: feast_registry::Error,
    registry: &Registry,
    project: &str,
    kinds: &[Kind],
    name: &str,
) -> Error {
    if !matches!(error.kind(), ErrorKind::NotFound(_) | ErrorKind::ViewNotFound) {
        return error.into();
    }
    // The first error is the one that matters.
    match hint(registry, project, kinds, name).await {
        Ok(Some(hint)) => anyhow!("{error}; {hint}"),
        _ => error.into(),
    }
}

async fn hint(registry: &Registry, project: &str, kinds: &[Kind], name: &str) -> Result<Option<String>> {
    let mut names = Vec::new();
    for kind in Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Project || kinds.contains(&Kind::Project)) {
        let scope = (kind != Kind::Project).then_some(project);
        for object in registry.list(kind, scope, &ListFilter::default(), Freshness::Stored).await? {
            names.push((kind, object.name()?));
        }
    }
    if let Some((kind, _)) = names.iter().find(|(_, other)| other == name) {
        let article = if kind.label().starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        return Ok(Some(format!("`{}` is {article} {kind}", text::clean(name))));
    }
    let candidates = names.iter().filter(|(kind, _)| kinds.contains(kind)).map(|(_, name)| name.as_str());
    Ok(nearest(name, candidates).map(|near| format!("did you mean `{}`?", text::clean(near))))
}

/// The name that is most like another one, if one is: but for case, or but for a typing error or two.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let wanted = plain(wanted);
    // One change in three characters, as compilers have it.
    let allowed = (wanted.chars().count() / 3).clamp(1, 4);
    names
        .map(|name| (distance(&wanted, &plain(name), allowed), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many characters must be added, removed or replaced to make one text of another (Levenshtein); something more
/// than `limit` when it is certainly more.
pub(super) fn distance(a: &str, b: &str, limit: usize) -> usize {
    let b: Vec<char> = b.chars().collect();
    if a.chars().count().abs_diff(b.len()) > limit {
        return limit + 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let names = ["driver_stats", "driver_state", "rider"];
        let near = |wanted| nearest(wanted, names.into_iter());
        assert_eq!(near("Driver-Stats"), Some("driver_stats"));
        assert_eq!(near("driver_stat"), Some("driver_stats"));
        assert_eq!(near("ridre"), None);
        assert_eq!(near("ridr"), Some("rider"));
        assert_eq!(near("payments"), None);
        assert_eq!(distance("kitten", "sitting", 9), 3);
    }
}
