//! Cached reads of a storage without a journal: what is warm never waits for the storage, and one refresh at a time is nobody's in particular.

use tokio::time::Instant;

use super::*;

async fn open_cached(mode: CacheMode, ttl: Duration) -> (Registry, Arc<Moody>) {
    let (registry, storage) = open_with(RegistryOptions::default().with_cache(CacheConfig { mode, ttl })).await;
    storage.has_no_journal.store(true, Ordering::SeqCst);
    registry.apply("p", entity("driver", "before")).await.expect("an apply");
    registry.refresh().await.expect("a refresh");
    (registry, storage)
}

const TTL: Duration = Duration::from_secs(10);

/// Fault: with a silent database, 0 of 33 cached reads with deadlines of 5 s succeeded.
#[tokio::test(start_paused = true)]
async fn a_silent_storage_is_no_outage_of_cached_reads() {
    let (registry, storage) = open_cached(CacheMode::Sync, TTL).await;
    storage.reading(Mood::Silence);
    tokio::time::sleep(TTL).await;
    let began = Instant::now();
    for number in 0..33 {
        let reader = registry.with_call(seconds(5));
        assert_eq!(read(&reader, "driver", Freshness::Cached).await.as_deref(), Some("before"), "read {number}");
    }
    assert!(began.elapsed() <= Duration::from_millis(250), "all together waited {:?}", began.elapsed());
    // The attempt fails after a minute, and with the next one nobody waits at all.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let began = Instant::now();
    assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("before"));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(registry.cache_age().expect("it was filled") > Duration::from_secs(120));
    // Own writes show all the same, and what others have written once the storage speaks again.
    storage.reading(Mood::Answer);
    registry.apply("p", entity("driver", "own")).await.expect("an apply");
    assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("own"));
    storage.plant(Key::object(Kind::Entity, "p", "rider"), entity("rider", "other").bytes).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    read(&registry, "rider", Freshness::Cached).await;
    settled().await;
    assert_eq!(read(&registry, "rider", Freshness::Cached).await.as_deref(), Some("other"));
}

/// The caller's time is not used up by waiting for what is only wanted fresher.
#[tokio::test(start_paused = true)]
async fn a_reader_with_little_time_gets_what_is_there() {
    let (registry, storage) = open_cached(CacheMode::Sync, TTL).await;
    storage.reading(Mood::Silence);
    tokio::time::sleep(TTL).await;
    let reader = registry.with_call(CallOptions::new().with_timeout(Duration::from_millis(20)));
    let began = Instant::now();
    assert_eq!(read(&reader, "driver", Freshness::Cached).await.as_deref(), Some("before"));
    assert!(began.elapsed() <= Duration::from_millis(11), "{:?}", began.elapsed());
}

/// Who found the contents too old, and then that they had just been read, has them read no second time.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_has_just_ended_is_not_followed_by_another() {
    let (registry, _storage) = open_cached(CacheMode::Sync, TTL).await;
    let cache = &registry.inner.cache;
    tokio::time::sleep(TTL).await;
    cache.freshen(|| registry.deadline()).await.expect("it is read again");
    settled().await;
    let age = registry.cache_age().expect("it was filled");
    tokio::time::sleep(Duration::from_secs(1)).await;
    // As one who looked before that.
    cache.freshen(|| registry.deadline()).await.expect("there is nothing to do");
    settled().await;
    assert_eq!(registry.cache_age(), Some(age + Duration::from_secs(1)), "it was read again");
}

/// Feast reads the storage before it answers once the time to live is over; so does this if the storage is fast.
#[tokio::test(start_paused = true)]
async fn a_fast_storage_is_read_before_an_answer_that_would_be_too_old() {
    let (registry, storage) = open_cached(CacheMode::Sync, TTL).await;
    storage.reading(Mood::Slow(Duration::from_millis(100)));
    for description in ["first", "second"] {
        storage.plant(Key::object(Kind::Entity, "p", "driver"), entity("driver", description).bytes).await;
        tokio::time::sleep(TTL).await;
        assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some(description));
    }
    // A slow one is not waited for twice.
    storage.reading(Mood::Slow(Duration::from_secs(2)));
    registry.refresh().await.expect("a refresh");
    storage.plant(Key::object(Kind::Entity, "p", "driver"), entity("driver", "third").bytes).await;
    tokio::time::sleep(TTL).await;
    let began = Instant::now();
    assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("second"));
    assert_eq!(began.elapsed(), Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("third"));
}

/// Fault: each caller who left aborted the refresh, and the next one began anew: it never ended.
#[tokio::test(start_paused = true)]
async fn callers_who_leave_share_the_first_fill_and_do_not_end_it() {
    let (registry, storage) = open().await;
    registry.apply("p", entity("driver", "there")).await.expect("an apply");
    storage.reading(Mood::Slow(Duration::from_secs(8)));
    let reads = storage.reads();
    for _ in 0..100 {
        let reader = registry.with_call(CallOptions::new().with_timeout(Duration::from_millis(20)));
        let left = reader.get(Kind::Entity, "p", "driver", Freshness::Cached).await.expect_err("not filled yet");
        assert_eq!(left.kind(), ErrorKind::DeadlineExceeded);
    }
    assert_eq!(storage.reads() - reads, 1, "all share one read of the storage");
    let began = Instant::now();
    assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("there"));
    assert!(began.elapsed() <= Duration::from_secs(6), "it was under way already");
    assert_eq!(storage.reads() - reads, 1);
}

#[tokio::test(start_paused = true)]
async fn many_refreshes_share_one_that_began_after_they_were_called() {
    let (registry, storage) = open_cached(CacheMode::Sync, TTL).await;
    let answer = Arc::new(Semaphore::new(0));
    storage.reading(Mood::AnswerLate(Arc::clone(&answer)));
    let reads = storage.reads();
    let refresh = || {
        let registry = registry.clone();
        tokio::spawn(async move { registry.refresh().await })
    };
    let first = refresh();
    settled().await;
    assert_eq!(storage.reads() - reads, 1);
    // What the first one has read does not have this.
    storage.plant(Key::object(Kind::Entity, "p", "driver"), entity("driver", "after").bytes).await;
    let others: Vec<_> = (0..50).map(|_| refresh()).collect();
    settled().await;
    assert_eq!(storage.reads() - reads, 1, "one at a time");
    answer.add_permits(100);
    first.await.expect("a task").expect("a refresh");
    for other in others {
        other.await.expect("a task").expect("a refresh");
        assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("after"));
    }
    assert_eq!(storage.reads() - reads, 2, "fifty refreshes are one");
}

/// Fault: a refresh that was cancelled left its list of writes behind, which grew with every write from then on.
#[tokio::test(start_paused = true)]
async fn nothing_is_noted_for_a_refresh_that_has_ended_however_it_has() {
    let (registry, storage) = open_cached(CacheMode::Sync, TTL).await;
    for mood in [Mood::Panic, Mood::Silence, Mood::Fail(ErrorKind::Unavailable)] {
        storage.reading(mood.clone());
        let refreshed = registry.with_call(seconds(120)).refresh().await;
        storage.reading(Mood::Answer);
        assert!(refreshed.is_err(), "{mood:?}");
        registry.apply("p", entity("driver", &format!("{mood:?}"))).await.expect("an apply");
        assert_eq!(registry.inner.cache.noted_meanwhile(), 0, "{mood:?}");
        registry.refresh().await.expect("the next refresh succeeds");
    }
    // One that nobody waits for any more goes on, and what is written meanwhile is not lost.
    let answer = Arc::new(Semaphore::new(0));
    storage.reading(Mood::AnswerLate(Arc::clone(&answer)));
    let hurried = registry.with_call(seconds(1));
    assert_eq!(hurried.refresh().await.expect_err("no time").kind(), ErrorKind::DeadlineExceeded);
    storage.reading(Mood::Answer);
    registry.apply("p", entity("driver", "meanwhile")).await.expect("an apply");
    assert!(registry.inner.cache.noted_meanwhile() > 0);
    answer.add_permits(1);
    settled().await;
    assert_eq!(registry.inner.cache.noted_meanwhile(), 0);
    assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("meanwhile"));
}

#[tokio::test(start_paused = true)]
async fn refreshes_that_fail_do_not_tighten_into_a_loop() {
    for mode in [CacheMode::Thread, CacheMode::Sync] {
        let (registry, storage) = open_cached(mode, Duration::from_millis(10)).await;
        storage.reading(Mood::Fail(ErrorKind::Unavailable));
        let reads = storage.reads();
        for _ in 0..6000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("before"));
        }
        let tried = storage.reads() - reads;
        assert!((5..=14).contains(&tried), "{mode:?}: {tried} tries within a minute");
        storage.reading(Mood::Answer);
        storage.plant(Key::object(Kind::Entity, "p", "driver"), entity("driver", "after").bytes).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        read(&registry, "driver", Freshness::Cached).await;
        settled().await;
        assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("after"), "{mode:?}");
    }
}

/// Fault: each kind was read under a lock of its own, so that a list of several could mix two states.
#[tokio::test]
async fn a_list_of_several_kinds_is_of_one_state() {
    let (registry, _) = open().await;
    let both = |round: usize| {
        let kinds = [Kind::FeatureView, Kind::LabelView].map(|kind| Key::object(kind, "p", "view"));
        kinds.map(|key| Write::Put(Record::new(key, Bytes::from(round.to_string()), 1))).to_vec()
    };
    registry.refresh().await.expect("a refresh");
    registry.inner.cache.apply(both(0), None);
    let writer = std::thread::spawn({
        let registry = registry.clone();
        move || (1..30_000).for_each(|round| registry.inner.cache.apply(both(round), None))
    });
    while !writer.is_finished() {
        let views = registry.list_views("p", &ListFilter::default(), Freshness::Cached).await.expect("a list");
        assert_eq!(views[0].bytes, views[1].bytes, "two kinds of one commit");
    }
    writer.join().expect("the writer");
}

/// A storage whose objects are parts of one buffer, which it reads anew each time, as a registry in a file.
#[derive(Debug, Default)]
struct OneBuffer {
    objects: Mutex<Vec<(String, Bytes)>>,
    buffers: Mutex<Vec<std::sync::Weak<Vec<u8>>>>,
}

struct Buffer(Arc<Vec<u8>>);

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[async_trait]
impl Backend for OneBuffer {
    fn location(&self) -> String {
        "one buffer".to_owned()
    }

    fn limits(&self) -> Limits {
        Limits::new(usize::MAX)
    }

    async fn prepare(&self, _: &Deadline) -> Result<()> {
        Ok(())
    }

    async fn read(&self, queries: &[Query], _: &Deadline) -> Result<Vec<Vec<Record>>> {
        let objects = self.objects.lock().expect("not poisoned");
        let buffer = Arc::new(objects.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect::<Vec<u8>>());
        self.buffers.lock().expect("not poisoned").push(Arc::downgrade(&buffer));
        let file = Bytes::from_owner(Buffer(buffer));
        let mut start = 0;
        let parts = objects.iter().map(|(name, bytes)| {
            let end = start + bytes.len();
            let record = Record::new(Key::object(Kind::Entity, "p", name), file.slice(start..end), 1);
            start = end;
            record
        });
        let parts: Vec<Record> = parts.collect();
        let answer = |query: &Query| match query {
            Query::Objects { kind: Kind::Entity, .. } => parts.clone(),
            _ => Vec::new(),
        };
        Ok(queries.iter().map(answer).collect())
    }

    async fn commit(&self, _: Commit, _: &Deadline) -> Result<Outcome> {
        Ok(Outcome::Committed { revision: None })
    }

    async fn journal(&self, _: &JournalQuery, _: &Deadline) -> Result<Vec<JournalEntry>> {
        Ok(Vec::new())
    }

    async fn remove_if_empty(&self, _: &Deadline) -> Result<bool> {
        Ok(false)
    }
}

/// Fault: each refresh that found something changed kept the whole file that it had read, 28 MB a time.
#[tokio::test]
async fn what_was_read_before_is_not_kept_for_the_parts_that_have_not_changed() {
    let storage = Arc::new(OneBuffer::default());
    let object = |number: usize, description: &str| entity(&number.to_string(), description).bytes;
    let first = (0..100).map(|number| (number.to_string(), object(number, "first")));
    storage.objects.lock().expect("not poisoned").extend(first);
    let options = RegistryOptions { read_only: true, ..RegistryOptions::default() };
    let registry = Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, options).await.expect("a registry");
    for number in 0..50 {
        storage.objects.lock().expect("not poisoned")[number].1 = object(number, "second");
        registry.refresh().await.expect("a refresh");
    }
    let buffers = storage.buffers.lock().expect("not poisoned");
    let held = buffers.iter().filter(|buffer| buffer.strong_count() > 0).count();
    assert!(buffers.len() >= 50 && held <= 1, "{held} of {} files are in memory", buffers.len());
}
