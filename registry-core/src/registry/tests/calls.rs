//! Deadlines, callers who leave, queues that are full, and what the journal says of a call.

use tokio::time::Instant;

use super::*;

/// Fault: a write whose caller was told that its deadline was over was done ten seconds later, over a newer one.
#[tokio::test(start_paused = true)]
async fn a_write_that_still_queues_ends_with_its_caller() {
    let (registry, storage) = open().await;
    let pool = Arc::new(Semaphore::new(0));
    storage.committing(Mood::Queue(Arc::clone(&pool)));
    let caller = tokio::spawn({
        let registry = registry.clone();
        async move { registry.apply("p", entity("driver", "given up")).await }
    });
    settled().await;
    assert_eq!(storage.commits().len(), 1, "it queues for a connection");
    caller.abort();
    assert!(caller.await.expect_err("aborted").is_cancelled());
    settled().await;
    pool.add_permits(10);
    settled().await;
    assert_eq!(storage.stored(Kind::Entity, "driver").await, None, "what was given up is not done later");
    registry.apply("p", entity("driver", "newer")).await.expect("the queue of the object is free");
    assert_eq!(read(&registry, "driver", Freshness::Stored).await.as_deref(), Some("newer"));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_sent_reaches_the_cache_without_its_caller() {
    let (registry, storage) = open().await;
    registry.refresh().await.expect("a refresh");
    let answer = Arc::new(Semaphore::new(0));
    storage.committing(Mood::AnswerLate(Arc::clone(&answer)));
    let hurried = registry.with_call(seconds(1));
    let caller = tokio::spawn(async move { hurried.apply("p", entity("driver", "sent")).await });
    settled().await;
    caller.abort();
    answer.add_permits(1);
    settled().await;
    assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("sent"));
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_wherever_it_waits() {
    let (registry, storage) = open().await;
    storage.reading(Mood::Silence);
    for (call, takes) in [(CallOptions::new(), 30), (seconds(2), 2)] {
        let registry = registry.with_call(call);
        let began = Instant::now();
        let apply = registry.apply("p", entity("driver", "")).await.expect_err("a silent storage");
        assert_eq!((apply.kind(), began.elapsed().as_secs()), (ErrorKind::DeadlineExceeded, takes));
        let began = Instant::now();
        let get = registry.get(Kind::Entity, "p", "driver", Freshness::Stored).await.expect_err("a silent storage");
        assert_eq!((get.kind(), began.elapsed().as_secs()), (ErrorKind::DeadlineExceeded, takes));
        let began = Instant::now();
        let first = registry.get(Kind::Entity, "p", "driver", Freshness::Cached).await.expect_err("an empty cache");
        assert_eq!((first.kind(), began.elapsed().as_secs()), (ErrorKind::DeadlineExceeded, takes));
        let began = Instant::now();
        assert_eq!(registry.ping().await.expect_err("a silent storage").kind(), ErrorKind::DeadlineExceeded);
        assert!(began.elapsed() <= Duration::from_secs(5), "a ping has a deadline of its own");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_another_writer_of_the_object_ends_at_the_deadline_too() {
    let (registry, storage) = open().await;
    storage.reading(Mood::Silence);
    let first = tokio::spawn({
        let registry = registry.clone();
        async move { registry.apply("p", entity("driver", "first")).await }
    });
    settled().await;
    let began = Instant::now();
    let second = registry.with_call(seconds(1)).apply("p", entity("driver", "second")).await;
    assert_eq!(second.expect_err("the queue").kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert_eq!(first.await.expect("a task").expect_err("silence").kind(), ErrorKind::DeadlineExceeded);
    storage.reading(Mood::Answer);
    registry.apply("p", entity("driver", "third")).await.expect("the queue is free");
}

#[tokio::test(start_paused = true)]
async fn each_try_after_a_conflict_is_a_commit_of_its_own_and_tries_end_at_the_deadline() {
    let (registry, storage) = open().await;
    storage.committing(Mood::Conflict);
    // The pauses are random: now and then one ends in the very millisecond of the deadline.
    for _ in 0..200 {
        let began = Instant::now();
        let refused = registry.with_call(seconds(3)).apply("p", entity("driver", "")).await.expect_err("conflicts");
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        assert!((2..=3).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }
    let mut tries = storage.commits();
    let number = tries.len();
    tries.sort();
    tries.dedup();
    assert!(number > 10 && tries.len() == number, "{} identities of {number} tries", tries.len());
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bound_calls_are_refused_at_once_and_cached_reads_are_not() {
    let mut options = RegistryOptions::default();
    (options.max_writes, options.max_stored_reads) = (2, 2);
    let (registry, storage) = open_with(options).await;
    registry.apply("p", entity("driver", "before")).await.expect("an apply");
    registry.refresh().await.expect("a refresh");
    storage.reading(Mood::Silence);
    let busy: Vec<_> = (0..4)
        .map(|number| {
            let registry = registry.clone();
            tokio::spawn(async move {
                if number % 2 == 0 {
                    // Of a view the history is read, which the cache does not hold.
                    registry.apply("p", view(&number.to_string(), &["trips"])).await.map(drop)
                } else {
                    registry.get(Kind::Entity, "p", "driver", Freshness::Stored).await.map(drop)
                }
            })
        })
        .collect();
    settled().await;
    let began = Instant::now();
    let write = registry.apply("p", entity("one too many", "")).await.expect_err("a full queue");
    let stored = registry.get(Kind::Entity, "p", "driver", Freshness::Stored).await.expect_err("a full queue");
    for refused in [write, stored] {
        assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused}");
        assert!(refused.is_retryable());
    }
    assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("before"));
    assert_eq!(began.elapsed(), Duration::ZERO);
    for task in busy {
        assert_eq!(task.await.expect("a task").expect_err("silence").kind(), ErrorKind::DeadlineExceeded);
    }
    storage.reading(Mood::Answer);
    registry.apply("p", entity("driver", "after")).await.expect("there is room again");
}

#[tokio::test]
async fn the_journal_says_who_wrote_and_why() {
    let (registry, _) = open().await;
    let call = CallOptions::new().with_author("ci").with_reason("release 7");
    let edited = registry.with_call(call).apply("p", entity("driver", "")).await.expect("an apply");
    registry.apply("p", entity("rider", "")).await.expect("an apply");
    let entries = registry.journal(&JournalQuery::after(None, 10)).await.expect("the journal");
    let said: Vec<_> = entries.iter().map(|entry| (entry.author.as_deref(), entry.reason.as_deref())).collect();
    assert_eq!(said, [(Some("ci"), Some("release 7")), (None, None)]);
    assert_eq!(edited.revision, Some(entries[0].revision));
    assert_eq!(registry.journal(&JournalQuery::after(edited.revision, 10)).await.expect("the journal").len(), 1);
}

/// Who is told that something is stored as it was sent sees it, though another try has stored it.
#[tokio::test]
async fn what_was_found_to_be_stored_already_shows_in_the_cache() {
    let (registry, storage) = open().await;
    registry.apply("p", entity("driver", "before")).await.expect("an apply");
    registry.refresh().await.expect("a refresh");
    let (other, _) = (Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, RegistryOptions::default()).await, ());
    other.expect("a registry").apply("p", entity("driver", "after")).await.expect("an apply");
    assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("before"));
    let edited = registry.apply("p", entity("driver", "after")).await.expect("an apply");
    assert!(!edited.has_changed);
    assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("after"));
}

/// Fault: whoever waited for a refresh that was ended before it had begun waited until the deadline.
#[tokio::test(start_paused = true)]
async fn closing_ends_a_refresh_that_has_not_begun() {
    let (registry, _) = open().await;
    let began = tokio::time::Instant::now();
    let (refreshed, closed) = tokio::join!(biased; registry.refresh(), registry.close());
    closed.expect("nothing waits");
    assert_eq!(refreshed.expect_err("it is closed").kind(), ErrorKind::Unavailable);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn closing_lets_go_of_the_storage_and_ends_the_refresh() {
    let (registry, storage) = open().await;
    registry.apply("p", entity("driver", "")).await.expect("an apply");
    registry.refresh().await.expect("a refresh");
    registry.close().await.expect("nothing waits");
    assert_eq!(storage.closed.load(Ordering::SeqCst), 1);
    assert_eq!(registry.refresh().await.expect_err("it is closed").kind(), ErrorKind::Unavailable);
    assert!(format!("{registry:?}").contains("moody://"));
}
