//! A proxy before a server: counts round trips and connections, loses answers, holds or delays them, and falls silent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use feast_registry_conformance::Link;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long a server is left to work on a request whose answer is lost.
const LOSES_FOR: Duration = Duration::from_millis(30);

/// A proxy, on a port of its own.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Requests that began after an answer: round trips.
    turns: AtomicUsize,
    /// The same with the first request of each connection.
    requests: AtomicUsize,
    connections: AtomicUsize,
    way: watch::Sender<Way>,
    /// The turn whose answer is to be lost, together with the connection; 0 is none.
    cut_at: AtomicUsize,
    cuts: AtomicUsize,
}

/// What may pass.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// The request whose answer is the first that is held.
    holds_from: Option<usize>,
    is_stalled: bool,
    /// How much longer than the server each answer takes.
    delay: Duration,
    /// How often all connections were ended.
    cuts: usize,
}

/// One connection through the proxy.
#[derive(Default)]
struct Connection {
    is_answering: AtomicBool,
    loses: AtomicBool,
    /// Which of all requests its last was; 0 is none.
    request: AtomicUsize,
}

impl Proxy {
    /// A proxy before a server.
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the proxy");
        let port = listener.local_addr().expect("the port of the proxy").port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).expect("a socket option");
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(relay(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, state }
    }

    /// How many round trips there have been.
    pub(crate) fn turns(&self) -> usize {
        self.state.turns.load(Ordering::SeqCst)
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Has each answer take so much longer from now on.
    pub(crate) fn delay_answers(&self, delay: Duration) {
        self.state.way.send_modify(|way| way.delay = delay);
    }

    /// How many answers were lost.
    pub(crate) fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// Loses the answer to the round trip that is so many from now (1 is the next), and its connection with it. The
    /// server gets the request, and does what it says.
    pub(crate) fn cut_in(&self, turns: usize) {
        self.state.cut_at.store(self.turns() + turns, Ordering::SeqCst);
    }

    /// Loses nothing more.
    pub(crate) fn heal(&self) {
        self.state.cut_at.store(0, Ordering::SeqCst);
    }
}

impl Link for Proxy {
    fn hold_answers(&self, after: usize) {
        let from = self.state.requests.load(Ordering::SeqCst) + after + 1;
        self.state.way.send_modify(|way| way.holds_from = Some(from));
    }

    fn stall(&self) {
        self.state.way.send_modify(|way| way.is_stalled = true);
    }

    fn cut(&self) {
        self.state.way.send_modify(|way| *way = Way { cuts: way.cuts + 1, ..Way::default() });
    }

    fn resume(&self) {
        self.state.way.send_modify(|way| (way.holds_from, way.is_stalled) = (None, false));
    }
}

impl State {
    /// Waits until the way lets something pass.
    async fn passes(&self, passes: impl Fn(&Way) -> bool) {
        self.way.subscribe().wait_for(passes).await.expect("the state has the sender");
    }
}

async fn relay(client: TcpStream, server: TcpStream, state: Arc<State>) {
    let link = Connection::default();
    let cuts = state.way.borrow().cuts;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // The first to end closes both.
    tokio::select! {
        () = requests(from_client, to_server, &state, &link) => {}
        () = answers(from_server, to_client, &state, &link) => {}
        () = state.passes(|way| way.cuts > cuts) => {}
    }
}

async fn requests(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, state: &State, link: &Connection) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = client.read(&mut buffer).await {
        let is_first = link.request.load(Ordering::SeqCst) == 0;
        let follows_an_answer = link.is_answering.swap(false, Ordering::SeqCst);
        state.passes(|way| !way.is_stalled).await;
        if is_first || follows_an_answer {
            link.request.store(state.requests.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        }
        if follows_an_answer {
            let turn = state.turns.fetch_add(1, Ordering::SeqCst) + 1;
            if state.cut_at.compare_exchange(turn, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                link.loses.store(true, Ordering::SeqCst);
            }
        }
        if server.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
}

async fn answers(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, state: &State, link: &Connection) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = server.read(&mut buffer).await {
        if link.loses.load(Ordering::SeqCst) {
            state.cuts.fetch_add(1, Ordering::SeqCst);
            // More of the answer, until the server has no more to say.
            while let Ok(Ok(1..)) = tokio::time::timeout(LOSES_FOR, server.read(&mut buffer)).await {}
            return;
        }
        let is_held = |way: &Way| {
            way.is_stalled || way.holds_from.is_some_and(|from| link.request.load(Ordering::SeqCst) >= from)
        };
        let delay = state.way.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        state.passes(|way| !is_held(way)).await;
        link.is_answering.store(true, Ordering::SeqCst);
        if client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
}
