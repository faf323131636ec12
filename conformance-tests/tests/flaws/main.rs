//! The suite tested: a backend that is wrong in one way must fail the tests named here, and the same backend without that
//! flaw must pass all of them. A test that nothing fails tests nothing.

mod alone;
mod backend;
mod feed;
mod link;
mod promises;
mod storage;
#[path = "../this_program/mod.rs"]
mod this_program;
mod words;

use std::collections::BTreeSet;
use std::sync::Arc;

use feast_registry_conformance::{Factory, Test, tests};

use crate::alone::InOwnFile;
use crate::backend::Flaw;
use crate::storage::{InFile, InMemory, flaw_of_worker};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime")
}

/// The storages that a test wants: those in memory have no other processes.
fn factory(flaw: Flaw, test: &str) -> Arc<dyn Factory> {
    match test.split_once("::") {
        Some(("durability", _)) => Arc::new(InOwnFile(flaw)),
        Some(("processes", _)) => Arc::new(InFile(flaw)),
        _ => Arc::new(InMemory(flaw)),
    }
}

#[test]
fn without_a_flaw_every_test_passes() {
    let report = runtime().block_on(feast_registry_conformance::all(factory(Flaw::None, "")));
    assert_eq!(report.passed.len() + report.excepted.len(), tests().len(), "every test is in the report:\n{report}");
    for (test, _) in &report.excepted {
        assert!(["durability", "processes"].contains(&test.theme()), "nothing else is left out:\n{report}");
        let outcome = runtime().block_on(test.run(factory(Flaw::None, test.name)));
        assert_eq!(outcome, Ok(()), "{test:?}");
    }
}

/// A store that one process at a time has open, and in it once, passes all that does not want several.
#[test]
fn a_store_of_one_process_needs_few_exceptions() {
    let factory = InOwnFile(Flaw::None);
    let excepted = tests().iter().filter(|test| factory.exceptions().iter().any(|of| of.covers(test.name))).count();
    let report = runtime().block_on(feast_registry_conformance::all(Arc::new(factory)));
    assert_eq!(report.passed.len() + excepted, tests().len(), "{report}");
}

/// What the tests of several processes start. It has nothing to do in an ordinary run.
#[test]
fn worker() {
    let flaw = flaw_of_worker(CAUGHT.iter().map(|(flaw, _)| *flaw));
    let is_alone = std::env::var_os(storage::ALONE).is_some();
    if is_alone {
        feast_registry_conformance::worker(InOwnFile(flaw));
    } else {
        feast_registry_conformance::worker(InFile(flaw));
    }
}

fn test(name: &str) -> Test {
    let test = tests().into_iter().find(|test| test.name == name);
    test.unwrap_or_else(|| panic!("the suite has no test `{name}`"))
}

macro_rules! flaws {
    ($($name:ident: $flaw:ident => [$($caught:literal),* $(,)?],)*) => {
        const CAUGHT: &[(Flaw, &[&str])] = &[$((Flaw::$flaw, &[$($caught),*])),*];

        $(
            #[test]
            fn $name() {
                is_caught(Flaw::$flaw);
            }
        )*
    };
}

fn is_caught(flaw: Flaw) {
    let (_, names) = CAUGHT.iter().find(|(listed, _)| *listed == flaw).expect("the flaw is listed");
    for name in *names {
        // A race need not go wrong each time that it can.
        let test = test(name);
        let message = (0..100).find_map(|_| runtime().block_on(test.run(factory(flaw, name))).err());
        let message = message.unwrap_or_else(|| panic!("`{name}` passes on a backend that has the flaw {flaw:?}"));
        let begin = format!("broken promise: {}\n", test.promise);
        assert!(message.starts_with(&begin), "`{name}` does not say which promise the flaw {flaw:?} breaks: {message}");
    }
}

/// Every test is one that some flaw fails.
#[test]
fn every_test_catches_something() {
    let caught: BTreeSet<&str> = CAUGHT.iter().flat_map(|(_, names)| *names).copied().collect();
    let idle: Vec<&str> = tests().into_iter().map(|test| test.name).filter(|name| !caught.contains(name)).collect();
    assert!(idle.is_empty(), "no flaw is known that these tests catch: {idle:#?}");
}

flaws! {
    ignores_case: IgnoresCase => [
        "names::objects_with_names_that_look_alike",
        "names::views_with_names_that_look_alike",
        "names::projects_with_names_that_look_alike",
        "reads::facts_are_of_one_project_or_of_all",
        "writes::deleting_a_project_touches_no_other",
    ],
    trims_names: TrimsNames => ["names::objects_with_names_that_look_alike", "names::long_names"],
    cuts_names: CutsNames => ["names::long_names"],
    deletes_projects_by_prefix: DeletesProjectsByPrefix => [
        "names::projects_with_names_that_look_alike",
        "writes::deleting_a_project_touches_no_other",
        "projects::deleting_one_leaves_the_others_byte_for_byte",
    ],
    cuts_values: CutsValues => [
        "values::every_byte_comes_back",
        "values::values_of_megabytes",
        "values::all_fields_of_a_version",
        "objects::names_up_to_the_limit",
    ],
    takes_values_for_text: TakesValuesForText => [
        "values::every_byte_comes_back",
        "objects::every_kind_is_applied_read_listed_and_deleted",
        "objects::names_that_look_alike",
        "unknown_fields::they_survive_materialization",
        "cache::own_writes_show_at_once",
        "cache::cached_lists_are_those_of_the_storage",
        "cache::writes_of_others_show_through_the_background_refresh",
    ],
    takes_empty_for_absent: TakesEmptyForAbsent => ["values::empty_values_are_values"],
    drops_unknown_fields: DropsUnknownFields => [
        "values::every_byte_comes_back",
        "objects::an_unchanged_apply_writes_nothing",
        "unknown_fields::they_survive_apply_get_and_list",
        "unknown_fields::they_survive_materialization",
        "unknown_fields::they_survive_being_applied_again",
        "unknown_fields::they_survive_in_the_history",
        "cache::writes_of_others_show_after_a_refresh",
        "cache::writes_of_others_show_within_the_time_to_live",
    ],
    forgets_descriptions: ForgetsDescriptions => ["values::all_fields_of_a_version"],
    forgets_the_second: ForgetsTheSecond => [
        "reads::the_second_of_writing_is_kept",
        "reads::updated_since_includes_its_second",
    ],
    sorts_keys: SortsKeys => [
        "reads::keys_come_in_the_order_that_was_asked",
        "reads::every_query_has_its_answer",
        "reads::thousands_of_keys_in_one_query",
    ],
    answers_repeated_keys_once: AnswersRepeatedKeysOnce => ["reads::keys_come_in_the_order_that_was_asked"],
    sorts_by_name: SortsByName => [
        "reads::objects_are_of_the_kind_and_project",
        "reads::objects_keep_their_order",
        "reads::what_is_deleted_and_stored_again_comes_last",
    ],
    moves_what_is_written: MovesWhatIsWritten => ["reads::objects_keep_their_order"],
    since_is_exclusive: SinceIsExclusive => ["reads::updated_since_includes_its_second"],
    sorts_versions_as_text: SortsVersionsAsText => ["reads::versions_come_by_number", "contention::versions_have_no_holes"],
    mixes_projects: MixesProjects => [
        "reads::objects_are_of_the_kind_and_project",
        "reads::facts_are_of_one_project_or_of_all",
    ],
    reads_one_by_one: ReadsOneByOne => ["races::a_read_is_one_snapshot", "histories::all_operations_have_one_order"],
    lists_later: ListsLater => ["races::a_read_is_one_snapshot", "histories::all_operations_have_one_order"],
    reads_old_states: ReadsOldStates => [
        "reads::an_acknowledged_write_is_seen_by_every_handle",
        "histories::all_operations_have_one_order",
    ],
    checks_then_writes: ChecksThenWrites => [
        "races::one_creator_wins",
        "races::one_deleter_wins",
        "races::no_increment_is_lost",
        "races::no_write_skew_between_absent_keys",
        "races::no_write_skew_between_values",
        "races::nothing_is_left_in_a_deleted_project",
        "histories::all_operations_have_one_order",
        "projects::an_apply_and_a_deletion_leave_all_or_nothing",
        "contention::every_interval_is_recorded_once",
        "contention::one_kind_of_view_gets_the_name",
        "contention::versions_have_no_holes",
        "contention::a_project_is_made_once",
        "contention::a_condition_lets_one_writer_write",
        "processes::every_interval_is_recorded_once",
        "processes::versions_have_no_holes",
        "processes::what_killed_processes_did_has_one_order",
    ],
    checks_early_what_it_only_reads: ChecksEarlyWhatItOnlyReads => [
        "races::no_write_skew_between_absent_keys",
        "races::no_write_skew_between_values",
        "histories::all_operations_have_one_order",
    ],
    writes_one_by_one: WritesOneByOne => [
        "races::a_read_is_one_snapshot",
        "histories::all_operations_have_one_order",
        "contention::applies_of_many_do_not_mix",
    ],
    writes_then_checks: WritesThenChecks => ["expectations::a_failed_expectation_leaves_no_trace"],
    forgets_absence: ForgetsAbsence => [
        "expectations::every_expectation_on_every_kind_of_key",
        "races::one_creator_wins",
        "races::no_write_skew_between_absent_keys",
        "histories::all_operations_have_one_order",
        "contention::one_kind_of_view_gets_the_name",
        "contention::a_condition_lets_one_writer_write",
    ],
    takes_presence_for_value: TakesPresenceForValue => [
        "expectations::every_expectation_on_every_kind_of_key",
        "expectations::values_are_compared_to_the_last_byte",
        "races::no_increment_is_lost",
        "races::no_write_skew_between_values",
        "histories::all_operations_have_one_order",
        "contention::every_interval_is_recorded_once",
        "contention::a_condition_lets_one_writer_write",
    ],
    reverses_writes: ReversesWrites => [
        "writes::writes_are_done_in_their_order",
        "writes::user_metadata_is_only_put_where_its_view_is",
    ],
    loses_every_tenth: LosesEveryTenth => [
        "reads::an_acknowledged_write_is_seen_by_every_handle",
        "histories::all_operations_have_one_order",
        "cache::racing_writers_leave_the_cache_as_the_storage",
        "processes::every_entity_is_there",
    ],
    answers_before_it_writes: AnswersBeforeItWrites => [
        "reads::an_acknowledged_write_is_seen_by_every_handle",
        "histories::all_operations_have_one_order",
        "durability::what_was_acknowledged_right_before_a_kill_is_there",
        "processes::a_killed_writer_loses_nothing_that_was_acknowledged",
        "processes::what_killed_processes_did_has_one_order",
    ],
    keeps_the_last_in_memory: KeepsTheLastInMemory => [
        "durability::what_was_acknowledged_right_before_a_kill_is_there",
        "durability::a_kill_in_mid_load_loses_nothing_that_was_acknowledged",
    ],
    stays_open_when_closed: StaysOpenWhenClosed => ["durability::what_is_closed_can_be_opened_anew"],
    names_another_key: NamesAnotherKey => [
        "expectations::every_expectation_on_every_kind_of_key",
        "expectations::expectations_are_about_the_state_before_the_writes",
    ],
    refuses_commits_of_nothing: RefusesCommitsOfNothing => ["expectations::commits_without_writes_or_expectations"],
    limits_keys: LimitsKeys => ["expectations::thousands_of_expectations_and_writes"],
    makes_views_for_metadata: MakesViewsForMetadata => ["writes::user_metadata_is_only_put_where_its_view_is"],
    keeps_metadata: KeepsMetadata => [
        "writes::user_metadata_stays_with_its_view_and_goes_with_it",
        "objects::user_metadata_and_history_go_with_their_view",
    ],
    loses_metadata: LosesMetadata => ["writes::user_metadata_stays_with_its_view_and_goes_with_it"],
    deletes_histories_by_project: DeletesHistoriesByProject => [
        "writes::a_history_is_deleted_whole_and_alone",
        "writes::deleting_what_is_not_there_is_no_error",
    ],
    preparing_empties: PreparingEmpties => [
        "storage::preparing_again_keeps_everything",
        "storage::everything_outlives_its_handle",
    ],
    preparing_twice_fails: PreparingTwiceFails => [
        "storage::preparing_again_keeps_everything",
        "storage::many_prepare_at_once",
        "objects::an_apply_of_many_is_all_or_nothing",
    ],
    verifying_makes: VerifyingMakes => ["storage::verify_creates_nothing"],
    reading_makes: ReadingMakes => ["storage::reading_a_removed_storage_makes_nothing"],
    removes_always: RemovesAlways => [
        "storage::only_a_storage_without_projects_is_removed",
        "races::a_removal_of_the_storage_loses_no_commit",
        "projects::the_last_one_takes_the_storage_along",
    ],
    removes_never: RemovesNever => ["storage::only_a_storage_without_projects_is_removed"],
    removes_for_anybody: RemovesForAnybody => ["storage::only_auto_removes"],
    is_gone_once_removed: IsGoneOnceRemoved => ["storage::a_removed_storage_is_usable"],
    forgets_identities: ForgetsIdentities => [
        "exactly_once::a_commit_that_is_sent_again_is_answered_as_before",
        "exactly_once::what_others_did_since_is_not_undone",
        "exactly_once::a_hundred_commits_by_others_make_nothing_forgotten",
        "exactly_once::a_storage_that_was_removed_remembers",
        "exactly_once::copies_that_race_take_effect_once",
        "histories::all_operations_have_one_order",
        "exactly_once::a_commit_that_was_refused_may_be_sent_again",
    ],
    remembers_sixteen: RemembersSixteen => [
        "exactly_once::a_hundred_commits_by_others_make_nothing_forgotten",
        "network::a_commit_whose_answer_is_lost_is_not_done_again",
    ],
    forgets_when_removed: ForgetsWhenRemoved => ["exactly_once::a_storage_that_was_removed_remembers"],
    notes_identities_late: NotesIdentitiesLate => ["exactly_once::copies_that_race_take_effect_once"],
    remembers_refusals: RemembersRefusals => ["exactly_once::a_commit_that_was_refused_may_be_sent_again"],
    journals_refusals: JournalsRefusals => ["journal::every_commit_has_one_entry"],
    journals_late: JournalsLate => ["journal::every_commit_has_one_entry"],
    journals_no_removals: JournalsNoRemovals => [
        "journal::an_entry_says_what_was_there_before_and_after",
        "journal::an_entry_says_what_was_there_of_objects_of_any_size",
        "journal::its_replay_is_the_state",
    ],
    forgets_origins: ForgetsOrigins => ["journal::every_commit_has_one_entry"],
    rounds_times: RoundsTimes => ["journal::every_commit_has_one_entry"],
    forgets_what_was_before: ForgetsWhatWasBefore => [
        "cache::writes_of_others_come_with_the_journal",
        "undo::a_deleted_project_comes_back_byte_for_byte",
        "undo::a_project_goes_back_and_what_was_materialized_stays",
        "journal::an_entry_says_what_was_there_before_and_after",
        "journal::an_entry_says_what_was_there_of_objects_of_any_size",
        "journal::its_replay_is_the_state",
    ],
    forgets_the_journal_when_removed: ForgetsTheJournalWhenRemoved => [
        "journal::it_outlives_the_removal_of_the_storage",
        "undo::the_last_project_comes_back_though_the_storage_was_removed",
    ],
    journal_repeats_the_last: JournalRepeatsTheLast => ["journal::a_reader_goes_on_where_it_was"],
    never_compacts: NeverCompacts => ["journal::an_unknown_place_is_said_to_be_compacted"],
    numbers_early: NumbersEarly => ["journal::a_reader_misses_nothing_while_others_write"],
    numbers_by_handle: NumbersByHandle => [
        "journal::revisions_grow_in_the_order_of_commits",
        "journal::its_order_is_one_of_the_commits",
    ],
    prunes_what_is_young: PrunesWhatIsYoung => ["journal::pruning_keeps_what_is_young_and_takes_the_oldest"],
    backwards_it_repeats: BackwardsItRepeats => ["journal_reads::backwards_it_is_the_same_entries"],
    backwards_it_wants_its_place: BackwardsItWantsItsPlace => ["journal_reads::backwards_it_is_the_same_entries"],
    backwards_pages_are_oldest_first: BackwardsPagesAreOldestFirst => ["journal_reads::backwards_it_is_the_same_entries"],
    forgets_absence_without_images: ForgetsAbsenceWithoutImages => [
        "journal_reads::without_images_it_says_what_was_there_and_what_was_not",
    ],
    leaves_removals_out_without_images: LeavesRemovalsOutWithoutImages => [
        "journal_reads::without_images_it_says_what_was_there_and_what_was_not",
    ],
    newest_is_its_own: NewestIsItsOwn => ["journal_reads::the_newest_revision_is_that_of_the_last_commit"],
    newest_is_zero_at_first: NewestIsZeroAtFirst => ["journal_reads::the_newest_revision_is_that_of_the_last_commit"],
    waits_for_itself: WaitsForItself => ["journal_reads::waiting_ends_when_somebody_commits"],
    waits_beyond_its_deadline: WaitsBeyondItsDeadline => ["journal_reads::waiting_ends_with_its_deadline"],
    forgets_what_others_did: ForgetsWhatOthersDid => [
        "journal_reads::what_others_did_is_journaled_and_not_written",
        "journal_reads::what_others_did_is_journaled_once_and_only_if_all_is_as_expected",
    ],
    journals_no_removals_by_others: JournalsNoRemovalsByOthers => [
        "journal_reads::what_others_did_is_journaled_and_not_written",
    ],
    writes_what_others_did: WritesWhatOthersDid => ["journal_reads::what_others_did_is_journaled_and_not_written"],
    takes_what_others_did_unchecked: TakesWhatOthersDidUnchecked => [
        "journal_reads::what_others_did_is_journaled_once_and_only_if_all_is_as_expected",
    ],
    takes_what_others_did_anew: TakesWhatOthersDidAnew => [
        "journal_reads::what_others_did_is_journaled_once_and_only_if_all_is_as_expected",
    ],
    ignores_deadlines: IgnoresDeadlines => ["deadlines::nothing_is_done_whose_deadline_is_over"],
    does_it_later: DoesItLater => ["deadlines::what_is_given_up_in_a_queue_is_never_done"],
    says_exceeded_when_done: SaysExceededWhenDone => ["deadlines::what_is_given_up_in_a_queue_is_never_done"],
    leaks_permits: LeaksPermits => [
        "cancellation::dropped_reads_leave_nothing_behind",
        "cancellation::dropped_looks_at_the_journal_leave_nothing_behind",
        "cancellation::dropped_commits_are_done_whole_or_not_at_all",
    ],
    torn_by_drops: TornByDrops => ["cancellation::dropped_commits_are_done_whole_or_not_at_all"],
    locks_while_preparing: LocksWhilePreparing => ["cancellation::dropped_preparations_and_removals_may_be_repeated"],
    guesses_from_expectations: GuessesFromExpectations => ["network::a_commit_whose_answer_is_lost_is_not_done_again"],
    takes_lost_for_done: TakesLostForDone => ["network::a_commit_that_is_lost_on_its_way_is_done"],
    takes_silence_for_not_done: TakesSilenceForNotDone => [
        "network::calls_end_with_their_deadline_though_nothing_answers",
    ],
    hangs_with_its_server: HangsWithItsServer => ["network::calls_end_with_their_deadline_though_nothing_answers"],
    keeps_dead_sessions: KeepsDeadSessions => ["network::a_handle_goes_on_after_its_sessions_were_ended"],
    pages_ignore_case: PagesIgnoreCase => ["pages::pages_are_parts_of_a_list_by_project_and_name"],
    pages_include_their_start: PagesIncludeTheirStart => [
        "pages::pages_are_parts_of_a_list_by_project_and_name",
        "pages::a_page_goes_on_after_what_is_gone",
        "pages::a_page_counts_what_its_query_asks_for",
    ],
    pages_lose_their_place: PagesLoseTheirPlace => ["pages::a_page_goes_on_after_what_is_gone"],
    pages_count_too_much: PagesCountTooMuch => ["pages::a_page_counts_what_its_query_asks_for"],
    dies_with_its_handle: DiesWithItsHandle => [
        "journal::it_outlives_its_handle",
        "storage::everything_outlives_its_handle",
        "reads::an_acknowledged_write_is_seen_by_every_handle",
    ],
    takes_the_write_lock_to_read: TakesTheWriteLockToRead => ["waiting::a_read_does_not_wait_for_writers"],
    blocks_while_committing: BlocksWhileCommitting => ["blocking::commits_do_not_block"],
    blocks_while_reading: BlocksWhileReading => ["blocking::reads_do_not_block"],
    blocks_otherwise: BlocksOtherwise => ["blocking::no_other_call_blocks"],
    blocks_in_a_task: BlocksInATask => ["blocking::commits_do_not_block"],
    refuses_large_values: RefusesLargeValues => ["limits::an_object_as_large_as_promised"],
    refuses_long_names: RefusesLongNames => ["names::long_names"],
    limits_change: LimitsChange => ["limits::they_are_final_once_prepared"],
    leaks_permits_of_reads: LeaksPermitsOfReads => ["cancellation::crowds_that_leave_take_nothing_along"],
    leaks_permits_of_commits: LeaksPermitsOfCommits => ["cancellation::crowds_that_leave_take_nothing_along"],
    refuses_unprepared: RefusesUnprepared => ["lifetime::calls_before_a_preparation"],
    fails_oddly_once_closed: FailsOddlyOnceClosed => ["lifetime::calls_after_closing"],
    does_what_it_refuses: DoesWhatItRefuses => ["lifetime::calls_after_closing", "lifetime::closing_cuts_off_no_commit"],
}
