//! A pool of connections to a server that does as the test says.

use std::sync::atomic::AtomicUsize;

use super::*;

#[derive(Debug, Default)]
struct Server {
    attempts: AtomicUsize,
    connections: AtomicUsize,
    stops: AtomicUsize,
    ends: Arc<AtomicUsize>,
    /// Whether what is closed is closed at once.
    lingers: bool,
    /// How long it takes to connect.
    connects_in: Duration,
}

impl Connector for Arc<Server> {
    /// Its number.
    type Connection = usize;

    const TRUSTED_FOR: Option<Duration> = None;

    async fn connect(&self) -> Result<usize, Failure> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.connects_in).await;
        Ok(self.connections.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn is_open(&self, _: &usize) -> bool {
        true
    }

    async fn answers(&self, _: &mut usize) -> bool {
        true
    }

    fn stop(&self, _: &usize) -> impl Future<Output = ()> + Send + 'static {
        let server = Arc::clone(self);
        async move {
            server.stops.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn end(&self, _: usize) -> impl Future<Output = ()> + Send + 'static {
        let (ends, lingers) = (Arc::clone(&self.ends), self.lingers);
        async move {
            ends.fetch_add(1, Ordering::SeqCst);
            if lingers {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn pool(server: &Arc<Server>, size: u32) -> Arc<Pool<Arc<Server>>> {
    let config = PoolConfig::new(size, 0);
    let pool = Pool::new(Arc::clone(server), "a server".to_owned(), config, None, Duration::from_secs(30));
    Arc::new(pool.expect("a pool"))
}

/// A read that takes so long.
fn read(time: Duration) -> impl for<'a> FnOnce(&'a mut usize) -> Answering<'a, usize> + Send + 'static {
    move |number| {
        Box::pin(async move {
            tokio::time::sleep(time).await;
            Ok(*number)
        })
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}

fn kind(failure: Failure) -> ErrorKind {
    failure.into_error().kind()
}

#[tokio::test(start_paused = true)]
async fn writers_leave_connections_for_reads() {
    for (size, writers) in [(1, 1), (2, 1), (3, 2), (7, 6), (8, 6), (15, 12)] {
        let pool = pool(&Arc::default(), size);
        let mut held = Vec::new();
        for _ in 0..writers {
            held.push(pool.get(Purpose::Write, &soon()).await.expect("a connection for a writer"));
        }
        let refused = pool.get(Purpose::Write, &soon()).await.expect_err("no more for writers");
        assert_eq!(kind(refused), ErrorKind::DeadlineExceeded, "size {size}");
        if size > 1 {
            pool.get(Purpose::Read, &soon()).await.expect("a connection for a read");
        }
        drop(held);
        pool.get(Purpose::Write, &soon()).await.expect("a connection that was given back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_for_a_connection_and_nothing_is_begun_after_it() {
    let server = Arc::default();
    let pool = pool(&server, 1);
    let held = pool.get(Purpose::Write, &soon()).await.expect("a connection");
    for purpose in [Purpose::Read, Purpose::Write] {
        let began = tokio::time::Instant::now();
        let deadline = Deadline::after(Duration::from_millis(200));
        assert_eq!(kind(pool.get(purpose, &deadline).await.expect_err("none")), ErrorKind::DeadlineExceeded);
        assert_eq!(began.elapsed(), Duration::from_millis(200));
    }
    let patient = Deadline::after(Duration::from_secs(3600));
    let began = tokio::time::Instant::now();
    assert_eq!(kind(pool.get(Purpose::Write, &patient).await.expect_err("none")), ErrorKind::Unavailable);
    assert_eq!(began.elapsed(), Duration::from_secs(30), "the pool's own timeout");
    drop(held);
    let over = Deadline::after(Duration::ZERO);
    assert_eq!(kind(pool.get(Purpose::Write, &over).await.expect_err("too late")), ErrorKind::DeadlineExceeded);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "what was given back unused is used again");
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_stopped_and_its_place_is_free_when_it_is_closed() {
    let server = Arc::new(Server { lingers: true, ..Server::default() });
    let pool = pool(&server, 1);
    let never = async |_: &mut usize| std::future::pending::<Result<(), Failure>>().await;
    // By its deadline.
    let connection = pool.get(Purpose::Read, &soon()).await.expect("a connection");
    let failure = pool.within(connection, &soon(), never).await.expect_err("no answer");
    assert!(matches!(failure, Failure::Final(_)), "{failure:?}");
    assert_eq!(kind(failure), ErrorKind::DeadlineExceeded);
    let began = tokio::time::Instant::now();
    // By its caller.
    let connection = pool.get(Purpose::Write, &soon()).await.expect("the place of the first");
    assert_eq!(began.elapsed(), Duration::from_secs(1), "the first has to be closed before");
    let deadline = soon();
    let call = pool.within(connection, &deadline, never);
    tokio::time::timeout(Duration::from_millis(10), call).await.expect_err("the caller leaves");
    drop(pool.get(Purpose::Write, &soon()).await.expect("the place of the second"));
    assert_eq!(server.stops.load(Ordering::SeqCst), 2);
    assert_eq!(server.ends.load(Ordering::SeqCst), 2);
}

/// Each caller leaves before a connection can be made, by its deadline or of itself.
#[tokio::test(start_paused = true)]
async fn connecting_goes_on_without_its_caller() {
    let server = Arc::new(Server { connects_in: Duration::from_millis(70), ..Server::default() });
    let pool = pool(&server, 1);
    for purpose in [Purpose::Read, Purpose::Write] {
        let deadline = Deadline::after(Duration::from_millis(20));
        assert_eq!(kind(pool.get(purpose, &deadline).await.expect_err("no time")), ErrorKind::DeadlineExceeded);
        let left = tokio::time::timeout(Duration::from_millis(10), pool.get(purpose, &soon())).await;
        assert!(left.is_err(), "{left:?}");
    }
    let hasty = Deadline::after(Duration::from_millis(20));
    pool.get(Purpose::Write, &hasty).await.expect("what was made for those before");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

/// Whoever came before has left, so the server is asked anew as soon as it may be there again.
#[tokio::test(start_paused = true)]
async fn connecting_without_its_caller_ends_soon() {
    let server = Arc::new(Server { connects_in: Duration::from_secs(3600), ..Server::default() });
    let pool = pool(&server, 1);
    let hasty = Deadline::after(Duration::from_millis(20));
    for _ in 0..3 {
        assert_eq!(kind(pool.get(Purpose::Write, &hasty).await.expect_err("no time")), ErrorKind::DeadlineExceeded);
    }
    let began = tokio::time::Instant::now();
    let next = Deadline::after(CONNECTS_ON_FOR + Duration::from_millis(100));
    assert_eq!(kind(pool.get(Purpose::Write, &next).await.expect_err("no time")), ErrorKind::DeadlineExceeded);
    assert_eq!(server.attempts.load(Ordering::SeqCst), 2, "the next one connects of its own");
    assert!(began.elapsed() > CONNECTS_ON_FOR);
}

/// One locked table is no reason to part with all connections.
#[tokio::test(start_paused = true)]
async fn a_read_whose_deadline_is_nearly_as_long_as_an_answer_may_take_costs_one_connection() {
    let server = Arc::new(Server::default());
    let pool = pool(&server, 4);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(pool.get(Purpose::Read, &soon()).await.expect("a connection"));
    }
    drop(held);
    for less in [Duration::from_millis(50), Duration::ZERO] {
        let deadline = Deadline::after(Duration::from_secs(30) - less);
        let failure = pool.read(&deadline, read(Duration::from_secs(3600))).await.expect_err("no answer");
        assert!(matches!(failure, Failure::Final(_)), "{failure:?}");
        assert_eq!(kind(failure), ErrorKind::DeadlineExceeded);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(server.ends.load(Ordering::SeqCst), 2);
    assert_eq!(pool.pool.manager().generation.load(Ordering::Acquire), 0, "the others were given up too");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_given_up_keeps_its_connection_when_it_is_answered_a_moment_later() {
    let server = Arc::new(Server { lingers: true, ..Server::default() });
    let pool = pool(&server, 1);
    let answer = Duration::from_millis(30);
    for _ in 0..100 {
        let hasty = Deadline::after(Duration::from_millis(20));
        assert_eq!(kind(pool.read(&hasty, read(answer)).await.expect_err("no time")), ErrorKind::DeadlineExceeded);
    }
    let left = tokio::time::timeout(Duration::from_millis(10), pool.read(&soon(), read(answer))).await;
    assert!(left.is_err(), "{left:?}");
    assert_eq!(pool.read(&soon(), read(answer)).await.expect("its answer"), 1);
    assert_eq!(server.ends.load(Ordering::SeqCst), 0);
    // What takes longer is stopped, and closed.
    let hasty = Deadline::after(Duration::from_millis(20));
    let began = tokio::time::Instant::now();
    let failure = pool.read(&hasty, read(Duration::from_secs(3600))).await.expect_err("no time");
    assert_eq!((kind(failure), began.elapsed()), (ErrorKind::DeadlineExceeded, Duration::from_millis(20)));
    assert_eq!(pool.read(&soon(), read(answer)).await.expect("its answer"), 2);
    assert_eq!((server.stops.load(Ordering::SeqCst), server.ends.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_read_without_an_answer_ends_and_a_closed_pool_has_no_connections() {
    let server = Arc::new(Server::default());
    let pool = pool(&server, 2);
    let patient = Deadline::after(Duration::from_secs(3600));
    let failure = pool.read(&patient, read(Duration::from_secs(3600))).await.expect_err("no answer");
    assert!(matches!(failure, Failure::Lost(_)), "{failure:?}");
    pool.close();
    let failure = pool.read(&patient, read(Duration::ZERO)).await.expect_err("closed");
    assert!(kind(failure) == ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_stopped_is_asked_what_became_of_it() {
    let server = Arc::new(Server::default());
    let pool = pool(&server, 2);
    let answers_when_stopped = async |_: &mut usize| {
        while server.stops.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(7)
    };
    let connection = pool.get(Purpose::Write, &soon()).await.expect("a connection");
    assert_eq!(pool.within(connection, &soon(), answers_when_stopped).await.expect("its answer"), 7);
    let connection = pool.get(Purpose::Write, &soon()).await.expect("a connection");
    let never = async |_: &mut usize| std::future::pending::<Result<(), Failure>>().await;
    let failure = pool.within(connection, &soon(), never).await.expect_err("no answer");
    assert!(matches!(failure, Failure::Lost(_)), "{failure:?}");
}

#[tokio::test]
async fn sessions_that_are_read_only_are_replaced_once() {
    let server = Arc::new(Server::default());
    let pool = pool(&server, 3);
    let read_only = || Failure::Unusable(Error::new(ErrorKind::ReadOnly, "a replica"));
    let (one, other) = (pool.get(Purpose::Write, &soon()).await, pool.get(Purpose::Read, &soon()).await);
    let failure = pool.within(one.expect("a connection"), &soon(), async |_| Err::<(), _>(read_only())).await;
    assert!(matches!(failure, Err(Failure::Unusable(_))), "{failure:?}");
    // One that was in use meanwhile is not used again either.
    pool.within(other.expect("a connection"), &soon(), async |_| Ok(())).await.expect("a read");
    let next = pool.get(Purpose::Write, &soon()).await.expect("a connection");
    let failure = pool
        .within(next, &soon(), async |number| {
            assert_eq!(*number, 3, "a new connection");
            Err::<(), _>(read_only())
        })
        .await;
    assert!(matches!(failure, Err(Failure::Final(_))), "{failure:?}");
}

#[test]
fn a_label_names_a_database_and_nothing_else() {
    for location in [
        "postgresql://feast@db:5432/feast",
        "postgresql+psycopg://feast:***@db:5432/feast?options=a@b",
        "mysql://db:5432/feast",
        "db:5432/feast",
    ] {
        assert_eq!(database_of(location), "db:5432/feast", "{location}");
    }
}
