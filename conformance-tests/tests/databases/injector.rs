//! A proxy before a server of MySQL that says something of its own on the sessions that pass through it: what becomes of
//! sessions on a server is not for their client to decide.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// A proxy, on a port of its own.
pub(crate) struct Injector {
    pub(crate) port: u16,
    state: Arc<State>,
}

/// A statement that is to be said on a session, and who waits until that is done.
type Saying = (String, oneshot::Sender<()>);

#[derive(Default)]
struct State {
    sessions: Mutex<Vec<mpsc::UnboundedSender<Saying>>>,
    /// What is said on each session before each of its requests.
    always: Mutex<Option<String>>,
}

impl Injector {
    /// A proxy before a server.
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the proxy");
        let port = listener.local_addr().expect("the port of the proxy").port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let (sayings, to_say) = mpsc::unbounded_channel();
                shared.sessions.lock().expect("the sessions").push(sayings);
                tokio::spawn(relay(client, server, to_say, Arc::clone(&shared)));
            }
        });
        Self { port, state }
    }

    /// Says something on each session that there is, none of which may be at work; returns on how many.
    pub(crate) async fn inject(&self, statement: &str) -> usize {
        let sessions = self.state.sessions.lock().expect("the sessions").clone();
        let mut count = 0;
        for session in sessions {
            let (said, is_said) = oneshot::channel();
            if session.send((statement.to_owned(), said)).is_ok() && is_said.await.is_ok() {
                count += 1;
            }
        }
        count
    }

    /// Says something from now on, on each session before each of its requests.
    pub(crate) fn inject_always(&self, statement: &str) {
        *self.state.always.lock().expect("the state") = Some(statement.to_owned());
    }
}

/// Runs a statement that returns no rows.
async fn say(server: &mut TcpStream, statement: &str) -> io::Result<()> {
    let length = u32::try_from(statement.len() + 1).expect("a short statement").to_le_bytes();
    let mut packet = vec![length[0], length[1], length[2], 0, 3];
    packet.extend_from_slice(statement.as_bytes());
    server.write_all(&packet).await?;
    let mut header = [0; 4];
    server.read_exact(&mut header).await?;
    let mut answer = vec![0; u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize];
    server.read_exact(&mut answer).await?;
    assert_eq!(answer.first(), Some(&0), "{statement}: {}", String::from_utf8_lossy(&answer));
    Ok(())
}

async fn relay(
    mut client: TcpStream,
    mut server: TcpStream,
    mut to_say: mpsc::UnboundedReceiver<Saying>,
    state: Arc<State>,
) -> io::Result<()> {
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            length = client.read(&mut request) => match length? {
                0 => return Ok(()),
                length => {
                    let always = state.always.lock().expect("the state").clone();
                    // A packet that begins a command: its number is 0, and the code that of a query.
                    if let (Some(statement), [_, _, _, 0, 3, ..]) = (always, &request[..length]) {
                        say(&mut server, &statement).await?;
                    }
                    server.write_all(&request[..length]).await?;
                }
            },
            length = server.read(&mut answer) => match length? {
                0 => return Ok(()),
                length => client.write_all(&answer[..length]).await?,
            },
            Some((statement, said)) = to_say.recv() => {
                say(&mut server, &statement).await?;
                let _ = said.send(());
            }
        }
    }
}
