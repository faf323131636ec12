//! Which project a command is about, and what is in a project.

use anyhow::{Result, bail};
use feast_registry::{Freshness, Kind, ListFilter, Registry};

use super::location::Opened;
use super::{missing, text};

/// The project to use: the one that was asked for, else that of the feature_store.yaml, else the only one there is.
pub(super) async fn choose(opened: &Opened, asked: Option<&str>) -> Result<String> {
    let projects = names(&opened.registry).await?;
    if let Some(project) = asked.or(opened.project.as_deref()) {
        check(opened, &projects, project)?;
        return Ok(project.to_owned());
    }
    match projects.as_slice() {
        [only] => Ok(only.clone()),
        [] => bail!("there is no project in {}", opened.registry.location()),
        _ => bail!("say which project, with --project; there are {}", text::names(projects.iter().map(String::as_str))),
    }
}

/// Checks that there is such a project.
pub(super) fn check(opened: &Opened, projects: &[String], project: &str) -> Result<()> {
    if projects.iter().any(|known| known == project) {
        return Ok(());
    }
    let missing = format!("there is no project `{}` in {}", text::clean(project), opened.registry.location());
    let known = || projects.iter().map(String::as_str);
    match missing::nearest(project, known()) {
        Some(near) => bail!("{missing}; did you mean `{}`?", text::clean(near)),
        None if projects.is_empty() => bail!("{missing}, which has none"),
        None => bail!("{missing}; there are {}", text::names(known())),
    }
}

/// The names of all projects.
pub(super) async fn names(registry: &Registry) -> Result<Vec<String>> {
    let projects = registry.list(Kind::Project, None, &ListFilter::default(), Freshness::Stored).await?;
    Ok(projects.iter().map(|project| project.name()).collect::<feast_registry::Result<_>>()?)
}

/// How many objects of each kind a project has; kinds of which it has none are left out.
pub(super) async fn counts(registry: &Registry, project: &str) -> Result<Vec<(Kind, usize)>> {
    let mut counts = Vec::new();
    for kind in Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Project) {
        let objects = registry.list(kind, Some(project), &ListFilter::default(), Freshness::Stored).await?;
        if !objects.is_empty() {
            counts.push((kind, objects.len()));
        }
    }
    Ok(counts)
}
