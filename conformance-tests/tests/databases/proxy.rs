//! A proxy before a database server: counts round trips, and loses answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

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
    /// The turn whose answer is to be lost, together with the connection; 0 is none.
    cut_at: AtomicUsize,
    cuts: AtomicUsize,
}

/// One connection through the proxy.
#[derive(Default)]
struct Link {
    is_answering: AtomicBool,
    loses: AtomicBool,
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
                tokio::spawn(relay(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, state }
    }

    /// How many round trips there have been.
    pub(crate) fn turns(&self) -> usize {
        self.state.turns.load(Ordering::SeqCst)
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

async fn relay(client: TcpStream, server: TcpStream, state: Arc<State>) {
    let link = Link::default();
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // The first to end closes both.
    tokio::select! {
        () = requests(from_client, to_server, &state, &link) => {}
        () = answers(from_server, to_client, &state, &link) => {}
    }
}

async fn requests(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, state: &State, link: &Link) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = client.read(&mut buffer).await {
        if link.is_answering.swap(false, Ordering::SeqCst) {
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

async fn answers(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, state: &State, link: &Link) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = server.read(&mut buffer).await {
        if link.loses.load(Ordering::SeqCst) {
            state.cuts.fetch_add(1, Ordering::SeqCst);
            // More of the answer, until the server has no more to say.
            while let Ok(Ok(1..)) = tokio::time::timeout(LOSES_FOR, server.read(&mut buffer)).await {}
            return;
        }
        link.is_answering.store(true, Ordering::SeqCst);
        if client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
}
