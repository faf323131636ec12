//! Projects: made at first use, with an identity of their own and a note of the last change
//! (Feast: `SqlRegistry._initialize_project_if_not_exists`, `_maybe_init_project_metadata`, `_set_last_updated_metadata`,
//! `_sync_feast_metadata_to_projects_table`).

use prost::Message;
use prost_types::Timestamp;

use crate::backend::{Key, Query};
use crate::draft::{Context, Draft};
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::proto::core::{Project, ProjectMeta, ProjectSpec};
use crate::rules::meta::later;

/// What rules that write in a project need to have read.
pub(crate) fn fetch_for_project(project: &str) -> Vec<Key> {
    vec![
        Key::project_object(project),
        Key::metadata(project, Key::PROJECT_UUID),
        Key::metadata(project, Key::LAST_UPDATED),
    ]
}

/// Makes the project and its identity if they are not there.
///
/// The commit then expects that the project is still there, so that nothing is ever added to a project that another
/// writer deletes at the same moment.
pub(crate) fn ensure(draft: &mut Draft<'_>, ctx: &mut Context<'_>, project: &str) -> Result<()> {
    if !draft.exists(&Key::project_object(project))? {
        create(draft, project, &ctx.now, &ctx.now);
    }
    ensure_identity(draft, ctx, project)
}

/// Gives the project its UUID if it has none.
pub(crate) fn ensure_identity(draft: &mut Draft<'_>, ctx: &mut Context<'_>, project: &str) -> Result<()> {
    let uuid = Key::metadata(project, Key::PROJECT_UUID);
    if ctx.keeps_metadata && draft.peek(&uuid)?.is_none() && !draft.has_written(&uuid) {
        draft.create(uuid, (ctx.new_uuid)(), &ctx.now);
    }
    note_creator(draft, ctx, project)
}

/// Notes who makes the project, if this draft does and they are known.
fn note_creator(draft: &mut Draft<'_>, ctx: &Context<'_>, project: &str) -> Result<()> {
    let (object, fact) = (Key::project_object(project), Key::metadata(project, Key::CREATOR));
    let is_new = draft.has_written(&object) && draft.peek(&object)?.is_none();
    if let Some(creator) = ctx.judges.creator().filter(|_| is_new && ctx.keeps_metadata && !draft.has_written(&fact)) {
        // What an older registry left there does not count.
        draft.put(fact, creator.to_owned(), &ctx.now);
    }
    Ok(())
}

/// Notes when the project was last changed, in whole seconds. Writers in one second need not all write the same, and a
/// later one is not put back by an earlier one that commits after it.
pub(crate) fn touch(draft: &mut Draft<'_>, ctx: &Context<'_>, project: &str) -> Result<()> {
    let key = Key::metadata(project, Key::LAST_UPDATED);
    if !ctx.keeps_metadata || draft.has_written(&key) {
        return Ok(());
    }
    let noted = draft.peek(&key)?.and_then(|text| std::str::from_utf8(&text).ok()?.parse::<i64>().ok());
    if draft.is_recalled() && noted.is_some_and(|noted| noted > ctx.now.seconds) {
        // Clocks differ, so what is stored by now may be lower.
        return Err(Error::internal("when the project was last changed is to be read"));
    }
    if noted.is_none_or(|noted| noted < ctx.now.seconds) {
        draft.get(&key)?;
        draft.put(key, ctx.now.seconds.to_string(), &ctx.now);
    }
    Ok(())
}

fn create(draft: &mut Draft<'_>, name: &str, created: &Timestamp, now: &Timestamp) {
    // An identity may be of a server whose clock is ahead of this one's.
    let updated = later(*created, *now);
    let project = Project {
        spec: Some(ProjectSpec { name: name.to_owned(), ..Default::default() }),
        meta: Some(ProjectMeta { created_timestamp: Some(*created), last_updated_timestamp: Some(updated) }),
    };
    draft.create(Key::project_object(name), project.encode_to_vec(), now);
}

/// What [`adopt`] needs to have read.
pub(crate) fn fetch_for_adoption() -> Vec<Query> {
    vec![Query::Metadata { project: None }, Query::objects(Kind::Project, None)]
}

/// Makes project objects for projects that only have an identity, as registries of older Feast versions do.
///
/// `identities` are the projects that have one, with the second (since 1970, UTC) that it was written in.
pub(crate) fn adopt(draft: &mut Draft<'_>, ctx: &Context<'_>, identities: &[(String, i64)]) -> Result<()> {
    for (project, since) in identities {
        if !draft.exists(&Key::project_object(project))? {
            create(draft, project, &Timestamp { seconds: *since, nanos: 0 }, &ctx.now);
        }
    }
    Ok(())
}
