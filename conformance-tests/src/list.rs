//! The list of the suite's tests: each with the promise that it proves.
//!
//! The themes come in the order in which they rest on each other, and within a theme the plainest test comes first: when
//! a test fails, what comes before it in the list is looked at for the reason.

use crate::run::Test;
use crate::{backend, durability, history, processes, registry};

/// Makes a list of tests: `theme (module) { test: "promise", … }`. A promise is a quotation from the documentation of what is
/// tested, "…" for what is left out of it; `own` marks one that is in this suite's own words.
macro_rules! list {
    ($($theme:ident ($($module:ident)::+) { $($test:ident: $($own:ident)? $promise:literal,)* })*) => {
        vec![$(list! { @theme $theme ($($module)::+) $($test [$($own)?] $promise,)* }),*].concat()
    };
    (@theme $theme:ident $module:tt $($test:ident $own:tt $promise:literal,)*) => {
        vec![$(list! { @test $theme $module $test $own $promise }),*]
    };
    (@test $theme:ident ($($module:ident)::+) $test:ident [$($own:ident)?] $promise:literal) => {
        Test {
            name: concat!(stringify!($theme), "::", stringify!($test)),
            promise: $promise,
            is_quoted: stringify!($($own)?).is_empty(),
            body: |setup| Box::pin($($module)::+::$test(setup)),
        }
    };
}

/// The themes of the plain contract, on which all others rest.
pub(crate) const PLAIN: [&str; 4] = ["reads", "values", "expectations", "writes"];

/// Every test of the suite, in the order in which [`all`](crate::all) runs them.
pub fn tests() -> Vec<Test> {
    list! {
        reads (backend::reads) {
            an_acknowledged_write_is_seen_by_every_handle:
                "Sees every commit that was acknowledged before, by this process or another.",
            keys_come_in_the_order_that_was_asked:
                "What is stored under exactly these keys, in their order; for a key that is not there, nothing.",
            every_query_has_its_answer: "one answer for each, in their order",
            objects_are_of_the_kind_and_project: "The objects of a kind in a project",
            objects_keep_their_order: "The order of lists. true: that in which the objects were first stored.",
            what_is_deleted_and_stored_again_comes_last:
                "The order of lists. true: that in which the objects were first stored.",
            the_second_of_writing_is_kept: "When it was last written: whole seconds since 1970 (UTC).",
            updated_since_includes_its_second: "Only what was written in this second (since 1970, UTC) or later.",
            versions_come_by_number: "The history of a view, oldest version first.",
            facts_are_of_one_project_or_of_all: "The facts about one project, or about all.",
            thousands_of_keys_in_one_query: "What is stored under exactly these keys, in their order",
        }
        values (backend::values) {
            every_byte_comes_back: "An object: its serialized message. … User metadata: the user's bytes.",
            empty_values_are_values: "Stores a record, in place of what is stored under its key.",
            values_of_megabytes: "The longest serialized object, in bytes.",
            all_fields_of_a_version: "A version: a serialized feast.core.FeatureViewVersionRecord.",
        }
        expectations (backend::expectations) {
            every_expectation_on_every_kind_of_key:
                "the expectations hold at one moment, for keys that are absent too, and at that moment everything is written",
            values_are_compared_to_the_last_byte: "Exactly these bytes are.",
            a_failed_expectation_leaves_no_trace: "An expectation did not hold; nothing is written.",
            expectations_are_about_the_state_before_the_writes: "What must be true. … What is then changed, in this order.",
            commits_without_writes_or_expectations: "All expectations held and all is written",
            thousands_of_expectations_and_writes: "All expectations held and all is written",
        }
        writes (backend::writes) {
            writes_are_done_in_their_order: "What is then changed, in this order.",
            deleting_what_is_not_there_is_no_error: "Removes what is stored under a key, if anything is.",
            user_metadata_is_only_put_where_its_view_is: "User metadata is only put where its view is.",
            user_metadata_stays_with_its_view_and_goes_with_it: "With a view goes its user metadata.",
            a_history_is_deleted_whole_and_alone: "Removes the whole history of a view.",
            deleting_a_project_touches_no_other:
                "Removes everything that has this project: objects, history and metadata.",
        }
        pages (backend::pages) {
            pages_are_parts_of_a_list_by_project_and_name: "with a page by project and name, compared as bytes",
            a_page_goes_on_after_what_is_gone:
                "Only what comes after the object of this project and name, whether that is still there or not.",
            a_page_counts_what_its_query_asks_for: "At most so many objects.",
        }
        names (backend::names) {
            objects_with_names_that_look_alike: "Two keys are the same only if every byte of their names is",
            views_with_names_that_look_alike: "Two keys are the same only if every byte of their names is",
            projects_with_names_that_look_alike: "Two keys are the same only if every byte of their names is",
            long_names: "The longest name of a project or of an object, in characters; None where there is no limit.",
        }
        storage (backend::storage) {
            everything_outlives_its_handle: "When this returns Outcome::Committed, the writes are durable.",
            preparing_again_keeps_everything: "Several processes may do this at once, and it may be done again.",
            many_prepare_at_once: "Several processes may do this at once, and it may be done again.",
            verify_creates_nothing: "creates what is missing, verifies that nothing is, or does neither",
            only_a_storage_without_projects_is_removed:
                "Removes the storage itself (tables, a file) if no project is left in it",
            a_removed_storage_is_usable:
                "The backend stays usable: reads then find nothing, and the next commit prepares the storage again.",
            reading_a_removed_storage_makes_nothing: "The backend stays usable: reads then find nothing",
            only_auto_removes: "if no project is left in it and the backend was made with SchemaMode::Auto",
        }
        races (backend::races) {
            one_creator_wins: "the expectations hold at one moment, for keys that are absent too",
            one_deleter_wins: "Commits atomically and serializably: the expectations hold at one moment",
            no_increment_is_lost: "Commits atomically and serializably: the expectations hold at one moment",
            no_write_skew_between_absent_keys: "the expectations hold at one moment, for keys that are absent too",
            no_write_skew_between_values: "Commits atomically and serializably: the expectations hold at one moment",
            nothing_is_left_in_a_deleted_project: "Commits atomically and serializably",
            a_removal_of_the_storage_loses_no_commit:
                "Removes the storage itself (tables, a file) if no project is left in it",
            a_read_is_one_snapshot: "Answers queries, all from one state of the storage",
        }
        histories (history) {
            all_operations_have_one_order: "Commits atomically and serializably: the expectations hold at one moment",
        }
        exactly_once (backend::exactly_once) {
            a_commit_that_is_sent_again_is_answered_as_before:
                "A commit happens once. … a commit that has taken place is answered as it was the first time",
            what_others_did_since_is_not_undone:
                "a commit that has taken place is answered as it was the first time, whatever others have written since",
            a_hundred_commits_by_others_make_nothing_forgotten:
                "whatever others have written since, for as long as the journal keeps its identity",
            a_storage_that_was_removed_remembers: "for as long as the journal keeps its identity",
            copies_that_race_take_effect_once: "A commit happens once.",
            a_commit_that_was_refused_may_be_sent_again:
                "may give it the same commit again … a commit that has taken place is answered as it was the first time",
        }
        journal (backend::journal) {
            every_commit_has_one_entry: "at that moment everything is written, with an entry of the journal",
            an_entry_says_what_was_there_before_and_after:
                "What was stored before; of more than a single key, always Image::NotKept.",
            an_entry_says_what_was_there_of_objects_of_any_size:
                "What was stored before … What is stored since",
            its_replay_is_the_state: "What it changed, in the order in which it did.",
            revisions_grow_in_the_order_of_commits: "Revisions grow in commit order, but need not be consecutive",
            a_reader_goes_on_where_it_was:
                "oldest first, those that come after a revision or from the oldest that is kept",
            an_unknown_place_is_said_to_be_compacted:
                "ErrorKind::Compacted when the journal no longer has, or never had, the revision of JournalRange::After",
            a_reader_misses_nothing_while_others_write:
                "What has been answered once never changes, and nothing new comes before it.",
            it_outlives_its_handle: "When this returns Outcome::Committed, the writes are durable.",
            it_outlives_the_removal_of_the_storage:
                "The journal outlives remove_if_empty where the storage has a place for it.",
            pruning_keeps_what_is_young_and_takes_the_oldest:
                "the newest entry stays, and so does what is younger than IDENTITY_KEPT_FOR",
            its_order_is_one_of_the_commits:
                "Their order is one in which the commits take place: what each expects holds after those before it.",
        }
        journal_reads (backend::journal_reads) {
            backwards_it_is_the_same_entries: "newest first, those that come before a revision or from the newest",
            without_images_it_says_what_was_there_and_what_was_not:
                "Image::NotKept stands for Image::Value (Image::Absent stays)",
            the_newest_revision_is_that_of_the_last_commit:
                "The highest revision of the commits that were acknowledged before this call",
            waiting_ends_when_somebody_commits: "need not notice a commit at once, but does so within seconds",
            waiting_ends_with_its_deadline: "but for no longer than the deadline says",
            what_others_did_is_journaled_and_not_written:
                "Changes that are journaled after those of writes though nothing is written for them",
            what_others_did_is_journaled_once_and_only_if_all_is_as_expected:
                "the expectations hold at one moment … A commit happens once.",
        }
        cancellation (backend::cancellation) {
            dropped_reads_leave_nothing_behind: "A read that is dropped has no effect.",
            dropped_looks_at_the_journal_leave_nothing_behind: "Any future may be dropped at any await.",
            dropped_commits_are_done_whole_or_not_at_all:
                "A commit that is dropped was done completely, is still done, or is not done at all",
            dropped_preparations_and_removals_may_be_repeated: "Any future may be dropped at any await.",
            crowds_that_leave_take_nothing_along:
                "gives back what it holds (a connection, a permit) when … is done, not when the caller leaves",
        }
        deadlines (backend::deadlines) {
            nothing_is_done_whose_deadline_is_over:
                "Once it is over, what has no effect yet ends with ErrorKind::DeadlineExceeded, wherever it waits",
            what_is_given_up_in_a_queue_is_never_done:
                "With any other error nothing was done, for certain, and nothing will be.",
        }
        waiting (backend::waiting) {
            a_read_does_not_wait_for_writers: "Does not wait for writers.",
        }
        blocking (backend::blocking) {
            commits_do_not_block: "None may block the thread that polls it for longer than a look at memory takes",
            reads_do_not_block: "None may block the thread that polls it for longer than a look at memory takes",
            no_other_call_blocks: "None may block the thread that polls it for longer than a look at memory takes",
        }
        limits (backend::limits) {
            an_object_as_large_as_promised: "The longest serialized object, in bytes.",
            they_are_final_once_prepared: "What can be stored, as far as is known: after prepare it is final.",
        }
        lifetime (backend::lifetime) {
            calls_before_a_preparation: "before prepare, and after close, where they may fail with ErrorKind::Unavailable",
            calls_after_closing: "before prepare, and after close, where they may fail with ErrorKind::Unavailable",
            closing_cuts_off_no_commit: "Ends what the backend keeps open, after what has been sent is done.",
        }
        network (backend::network) {
            a_commit_whose_answer_is_lost_is_not_done_again:
                "A commit happens once. Whoever is not answered by the storage may give it the same commit again",
            a_commit_that_is_lost_on_its_way_is_done: "the backend goes on to learn what became of it",
            calls_end_with_their_deadline_though_nothing_answers:
                "Once it is over, what has no effect yet ends with ErrorKind::DeadlineExceeded, wherever it waits: in a \
                 queue, for a connection, for a lock, for an answer to a read.",
            a_handle_goes_on_after_its_sessions_were_ended:
                "ErrorKind::Unavailable and ErrorKind::Overloaded say that the same call may succeed later.",
        }
        objects (registry::objects) {
            every_kind_is_applied_read_listed_and_deleted: "Creates or replaces one object of a project … Deletes an object",
            an_unchanged_apply_writes_nothing: "Of an object that says what is already stored, nothing is written.",
            names_up_to_the_limit: own "An object of any name up to the storage's limit is kept; one of a longer is refused.",
            names_that_look_alike: own "Objects whose names differ in a single byte are different objects.",
            an_apply_of_many_is_all_or_nothing: "Applies many objects of one project in one commit: all of them or none.",
            user_metadata_and_history_go_with_their_view: "Deletes an object; with a view goes its history",
        }
        unknown_fields (registry::unknown_fields) {
            they_survive_apply_get_and_list: own "Fields that this version does not know are kept as they came.",
            they_survive_materialization: own "Fields that this version does not know are kept as they came.",
            they_survive_being_applied_again: own "Fields that this version does not know are kept as they came.",
            they_survive_in_the_history: own "Fields that this version does not know are kept as they came.",
        }
        projects (registry::projects) {
            deleting_one_leaves_the_others_byte_for_byte:
                "Deletes a project with everything in it and nothing of another, in one commit",
            the_last_one_takes_the_storage_along:
                "When the last project goes and schema_mode is auto, the storage is removed too; the next write makes it again.",
            an_apply_and_a_deletion_leave_all_or_nothing:
                "Deletes a project with everything in it and nothing of another, in one commit",
        }
        undo (registry::undo) {
            a_deleted_project_comes_back_byte_for_byte:
                "What is gone comes back byte for byte; with a view come its history and user metadata, with a project everything in it.",
            a_project_goes_back_and_what_was_materialized_stays:
                "What is there gets the definition that it had, as if that were applied … What has been materialized stays",
            the_last_project_comes_back_though_the_storage_was_removed:
                "The journal outlives remove_if_empty where the storage has a place for it.",
        }
        cache (registry::cache) {
            own_writes_show_at_once: "It may come from memory: this process's own writes show at once",
            writes_of_others_show_after_a_refresh:
                "Reads everything anew for cached reads (Feast: refresh), with a read that begins after this call",
            writes_of_others_come_with_the_journal:
                "those of others within a second where the storage has a journal",
            writes_of_others_show_within_the_time_to_live:
                "those of others within cache_ttl_seconds and the time that a refresh takes",
            writes_of_others_show_through_the_background_refresh:
                "those of others within cache_ttl_seconds and the time that a refresh takes",
            cached_lists_are_those_of_the_storage:
                "The objects of a kind in a project, in the order in which they were first stored",
            racing_writers_leave_the_cache_as_the_storage:
                "It may come from memory: this process's own writes show at once",
        }
        contention (registry::contention) {
            every_interval_is_recorded_once:
                "Records that a view has been materialized from start to end (UTC), adding exactly this interval to what is \
                 stored",
            one_kind_of_view_gets_the_name: own "A name is one view's, of whichever of the four kinds.",
            versions_have_no_holes: "The history of a view, oldest version first",
            a_project_is_made_once: "Creates or replaces one object of a project, which is made if it is not there.",
            applies_of_many_do_not_mix: "Applies many objects of one project in one commit: all of them or none.",
            a_condition_lets_one_writer_write:
                "It is asked about what the commit finds, so it holds at the moment of the commit",
        }
        durability (durability) {
            what_was_acknowledged_right_before_a_kill_is_there:
                "When this returns Outcome::Committed, the writes are durable.",
            a_kill_in_mid_load_loses_nothing_that_was_acknowledged:
                "When this returns Outcome::Committed, the writes are durable.",
            what_is_closed_can_be_opened_anew:
                "a storage that can be open only once can be opened anew when this returns",
        }
        processes (processes) {
            every_interval_is_recorded_once:
                "Writers may race, within this process and between processes: each write decides again from what another \
                 has left",
            every_entity_is_there: "Every write is atomic, and durable when it returns.",
            versions_have_no_holes:
                "Writers may race, within this process and between processes: each write decides again from what another \
                 has left",
            a_killed_writer_loses_nothing_that_was_acknowledged: "Every write is atomic, and durable when it returns.",
            what_killed_processes_did_has_one_order:
                "A commit that is dropped was done completely, is still done, or is not done at all",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Where the promises are made. Outside of the workspace the core's sources are not beside this crate's.
    const SOURCES: [&str; 8] = [
        "backend.rs",
        "journal.rs",
        "registry/edit.rs",
        "registry/mod.rs",
        "registry/options.rs",
        "registry/read.rs",
        "registry/undo.rs",
        "registry/write.rs",
    ];

    /// The words of documentation: without the marks of comments and links, and with single spaces.
    fn words(text: &str) -> String {
        let lines = text.lines().map(|line| line.trim().trim_start_matches("///").trim_start_matches("//!"));
        let mut text = lines.collect::<Vec<_>>().join(" ");
        while let Some(begin) = text.find("](") {
            let end = text[begin..].find(')').map_or(text.len(), |length| begin + length + 1);
            text.replace_range(begin..end, "");
        }
        let text = text.replace(['[', ']', '`'], "");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Whether the parts of a quotation follow each other in the documentation.
    fn is_quoted_from(mut documentation: &str, promise: &str) -> bool {
        promise.split('…').all(|part| match documentation.split_once(part.trim()) {
            Some((_, rest)) => {
                documentation = rest;
                true
            }
            None => false,
        })
    }

    #[test]
    fn promises_are_quoted_as_they_are_made() {
        let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../registry-core/src");
        if !core.is_dir() {
            // The packaged crate, which the workspace's own run of this has checked.
            return;
        }
        let read = |name: &&str| std::fs::read_to_string(core.join(name)).map(|text| words(&text));
        let documentation: Vec<String> =
            SOURCES.iter().map(read).collect::<Result<_, _>>().expect("the core's sources are there");
        let missing: Vec<_> = tests()
            .into_iter()
            .filter(|test| test.is_quoted && !documentation.iter().any(|of| is_quoted_from(of, test.promise)))
            .map(|test| (test.name, test.promise))
            .collect();
        assert!(missing.is_empty(), "no documentation makes these promises: {missing:#?}");
    }

    #[test]
    fn quotations_are_looked_up_by_their_words() {
        let documentation =
            words("    /// A [`Key`](crate::Key) is\n    /// stored  once.\n    fn x() {}\n    /// Then `twice`.");
        assert!(is_quoted_from(&documentation, "A Key is stored once."));
        assert!(is_quoted_from(&documentation, "A Key … Then twice."));
        assert!(!is_quoted_from(&documentation, "Then twice. … A Key"));
        assert!(!is_quoted_from(&documentation, "A Key is stored twice."));
    }

    #[test]
    fn plain_themes_come_first() {
        let mut themes: Vec<&str> = tests().iter().map(Test::theme).collect();
        themes.dedup();
        assert_eq!(themes[..PLAIN.len()], PLAIN);
        let count = themes.len();
        themes.sort_unstable();
        themes.dedup();
        assert_eq!(themes.len(), count, "each theme stands in one place");
    }
}
