//! The list of the suite's tests. The macro and [`tests`] are both made from it, so neither can have a test that the other
//! lacks.

use crate::run::Test;
use crate::{backend, history, processes, registry};

/// Hands the list to `__make!`, after what that is to make of it.
#[doc(hidden)]
#[macro_export]
macro_rules! __list {
    ($($what:tt)*) => { $crate::__make! { [$($what)*]
        reads (backend::reads) {
            keys_come_in_the_order_that_was_asked,
            objects_are_of_the_kind_and_project,
            objects_keep_their_order,
            what_is_deleted_and_stored_again_comes_last,
            updated_since_includes_its_second,
            the_second_of_writing_is_kept,
            versions_come_by_number,
            facts_are_of_one_project_or_of_all,
            every_query_has_its_answer,
            thousands_of_keys_in_one_query,
            an_acknowledged_write_is_seen_by_every_handle,
        }
        pages (backend::pages) {
            pages_are_parts_of_a_list_by_project_and_name,
            a_page_goes_on_after_what_is_gone,
            a_page_counts_what_its_query_asks_for,
        }
        names (backend::names) {
            objects_with_names_that_look_alike,
            views_with_names_that_look_alike,
            projects_with_names_that_look_alike,
            long_names,
        }
        values (backend::values) {
            every_byte_comes_back,
            empty_values_are_values,
            values_of_megabytes,
            all_fields_of_a_version,
        }
        expectations (backend::expectations) {
            every_expectation_on_every_kind_of_key,
            values_are_compared_to_the_last_byte,
            a_failed_expectation_leaves_no_trace,
            expectations_are_about_the_state_before_the_writes,
            commits_without_writes_or_expectations,
            thousands_of_expectations_and_writes,
        }
        writes (backend::writes) {
            writes_are_done_in_their_order,
            user_metadata_is_only_put_where_its_view_is,
            user_metadata_stays_with_its_view_and_goes_with_it,
            deleting_what_is_not_there_is_no_error,
            a_history_is_deleted_whole_and_alone,
            deleting_a_project_touches_no_other,
        }
        storage (backend::storage) {
            preparing_again_keeps_everything,
            many_prepare_at_once,
            verify_creates_nothing,
            only_a_storage_without_projects_is_removed,
            a_removed_storage_is_usable,
            reading_a_removed_storage_makes_nothing,
            only_auto_removes,
            everything_outlives_its_handle,
        }
        races (backend::races) {
            one_creator_wins,
            one_deleter_wins,
            no_increment_is_lost,
            no_write_skew_between_absent_keys,
            no_write_skew_between_values,
            nothing_is_left_in_a_deleted_project,
            a_removal_of_the_storage_loses_no_commit,
            a_read_is_one_snapshot,
        }
        histories (history) {
            all_operations_have_one_order,
        }
        exactly_once (backend::exactly_once) {
            a_commit_that_is_sent_again_is_answered_as_before,
            what_others_did_since_is_not_undone,
            a_hundred_commits_by_others_make_nothing_forgotten,
            a_storage_that_was_removed_remembers,
            copies_that_race_take_effect_once,
            a_commit_that_was_refused_may_be_sent_again,
        }
        journal (backend::journal) {
            every_commit_has_one_entry,
            an_entry_says_what_was_there_of_objects_of_any_size,
            an_entry_says_what_was_there_before_and_after,
            its_replay_is_the_state,
            revisions_grow_in_the_order_of_commits,
            a_reader_goes_on_where_it_was,
            an_unknown_place_is_said_to_be_compacted,
            a_reader_misses_nothing_while_others_write,
            it_outlives_its_handle,
            it_outlives_the_removal_of_the_storage,
        }
        cancellation (backend::cancellation) {
            dropped_reads_leave_nothing_behind,
            dropped_looks_at_the_journal_leave_nothing_behind,
            dropped_commits_are_done_whole_or_not_at_all,
            dropped_preparations_and_removals_may_be_repeated,
        }
        deadlines (backend::deadlines) {
            nothing_is_done_whose_deadline_is_over,
            what_is_given_up_in_a_queue_is_never_done,
        }
        network (backend::network) {
            a_commit_whose_answer_is_lost_is_not_done_again,
            a_commit_that_is_lost_on_its_way_is_done,
            calls_end_with_their_deadline_though_nothing_answers,
            a_handle_goes_on_after_its_sessions_were_ended,
        }
        objects (registry::objects) {
            every_kind_is_applied_read_listed_and_deleted,
            an_unchanged_apply_writes_nothing,
            names_up_to_the_limit,
            names_that_look_alike,
            an_apply_of_many_is_all_or_nothing,
            user_metadata_and_history_go_with_their_view,
        }
        unknown_fields (registry::unknown_fields) {
            they_survive_apply_get_and_list,
            they_survive_materialization,
            they_survive_being_applied_again,
            they_survive_in_the_history,
        }
        projects (registry::projects) {
            deleting_one_leaves_the_others_byte_for_byte,
            the_last_one_takes_the_storage_along,
            an_apply_and_a_deletion_leave_all_or_nothing,
        }
        cache (registry::cache) {
            own_writes_show_at_once,
            writes_of_others_show_after_a_refresh,
            writes_of_others_show_within_the_time_to_live,
            writes_of_others_show_through_the_background_refresh,
            cached_lists_are_those_of_the_storage,
            racing_writers_leave_the_cache_as_the_storage,
        }
        contention (registry::contention) {
            every_interval_is_recorded_once,
            one_kind_of_view_gets_the_name,
            versions_have_no_holes,
            a_project_is_made_once,
            applies_of_many_do_not_mix,
        }
        processes (processes) {
            every_interval_is_recorded_once,
            every_entity_is_there,
            versions_have_no_holes,
            a_killed_writer_loses_nothing_that_was_acknowledged,
            what_killed_processes_did_has_one_order,
        }
    } };
}

/// Makes functions for a test runner, or the list as a value.
#[doc(hidden)]
#[macro_export]
macro_rules! __make {
    ([functions $factory:expr] $($theme:ident ($($module:ident)::+) { $($test:ident,)* })*) => {
        $( $crate::__make! { @theme [$factory] $theme { $($test)* } } )*
    };
    (@theme [$factory:expr] $theme:ident { $($test:ident)* }) => {
        mod $theme {
            #[allow(unused_imports)]
            use super::*;

            $(
                #[test]
                fn $test() {
                    let name = concat!(stringify!($theme), "::", stringify!($test));
                    $crate::run_one(::std::sync::Arc::new($factory), name);
                }
            )*
        }
    };
    ([tests] $($theme:ident $module:tt { $($test:ident,)* })*) => {
        vec![$($(
            $crate::__make! { @entry $theme $module $test },
        )*)*]
    };
    (@entry $theme:ident ($($module:ident)::+) $test:ident) => {
        Test {
            name: concat!(stringify!($theme), "::", stringify!($test)),
            body: |setup| Box::pin($($module)::+::$test(setup)),
        }
    };
}

/// Every test of the suite, in the order in which [`all`](crate::all) runs them.
pub fn tests() -> Vec<Test> {
    crate::__list! { tests }
}

/// Makes one `#[test]` of every test of the suite, in a module for each theme.
///
/// The argument is an expression whose value is a [`Factory`](crate::Factory); it is evaluated for each test. What it
/// names must be in scope where the macro is called. For a second backend in the same file, call it inside a module.
#[macro_export]
macro_rules! conformance_tests {
    ($factory:expr) => {
        $crate::__list! { functions $factory }
    };
}
