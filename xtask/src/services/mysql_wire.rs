//! What MySQL's and MariaDB's protocol is needed for here: the greeting tells which server it is, an empty password logs
//! in, and a statement shows that the user may make databases.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// The longest wait for a connection or an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// CLIENT_LONG_PASSWORD, CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x1 | 0x200 | 0x8000 | 0x8_0000;

/// What a server says of itself before anyone logs in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) mariadb: bool,
    /// The number alone: 10.11.19, 9.7.4.
    pub(crate) version: String,
}

impl Greeting {
    /// Reads the packet's payload.
    fn parse(payload: &[u8]) -> Result<Self> {
        match payload {
            [10, rest @ ..] => {
                let end = rest.iter().position(|byte| *byte == 0).context("the greeting has no version")?;
                Ok(Self::of_version(&String::from_utf8_lossy(&rest[..end])))
            }
            [0xff, ..] => bail!("{}", error_message(payload)),
            _ => bail!("that is no greeting of MySQL or MariaDB"),
        }
    }

    fn of_version(text: &str) -> Self {
        let mariadb = text.contains("MariaDB");
        // MariaDB 10 puts this before its version, for replicas that know only MySQL.
        let text = if mariadb { text.strip_prefix("5.5.5-").unwrap_or(text) } else { text };
        Self { mariadb, version: text.split('-').next().unwrap_or(text).to_owned() }
    }

    /// The first part of the version.
    pub(crate) fn major(&self) -> u32 {
        self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }
}

/// A connection that was greeted.
pub(crate) struct Connection {
    stream: TcpStream,
    pub(crate) greeting: Greeting,
}

impl Connection {
    pub(crate) fn open(address: &str) -> Result<Self> {
        let mut stream = connect(address)?;
        let (_, payload) = packet(&mut stream).with_context(|| format!("no greeting from {address}"))?;
        let greeting = Greeting::parse(&payload).with_context(|| format!("at {address}"))?;
        Ok(Self { stream, greeting })
    }

    /// Logs in with an empty password.
    pub(crate) fn log_in(&mut self, user: &str) -> Result<()> {
        let mut answer = CAPABILITIES.to_le_bytes().to_vec();
        answer.extend(0x100_0000_u32.to_le_bytes());
        answer.push(45); // utf8mb4
        answer.extend([0; 23]);
        answer.extend(user.as_bytes());
        // The end of the name, then a proof of no bytes.
        answer.extend([0, 0]);
        answer.extend(b"mysql_native_password\0");
        self.send(1, &answer)?;
        let (number, payload) = packet(&mut self.stream)?;
        match payload.as_slice() {
            [0, ..] => Ok(()),
            // The server wants another method; an empty password is one zero byte in MySQL's and nothing in the others.
            [0xfe, plugin @ ..] => {
                let proof: &[u8] = if plugin.starts_with(b"caching_sha2_password") { &[0] } else { &[] };
                self.send(number.wrapping_add(1), proof)?;
                let (_, payload) = packet(&mut self.stream)?;
                ensure!(payload.first() == Some(&0), "{}", error_message(&payload));
                Ok(())
            }
            _ => bail!("{}", error_message(&payload)),
        }
    }

    /// Runs a statement that returns no rows.
    pub(crate) fn execute(&mut self, statement: &str) -> Result<()> {
        let mut command = vec![3];
        command.extend(statement.as_bytes());
        self.send(0, &command)?;
        let (_, payload) = packet(&mut self.stream)?;
        ensure!(payload.first() == Some(&0), "{}", error_message(&payload));
        Ok(())
    }

    fn send(&mut self, number: u8, payload: &[u8]) -> Result<()> {
        let length = u32::try_from(payload.len())?.to_le_bytes();
        let mut packet = vec![length[0], length[1], length[2], number];
        packet.extend(payload);
        self.stream.write_all(&packet)?;
        Ok(())
    }
}

/// A connection that neither hangs at once nor later.
pub(crate) fn connect(address: &str) -> Result<TcpStream> {
    let mut last = None;
    for address in address.to_socket_addrs().with_context(|| format!("cannot resolve {address}"))? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    let error = last.map_or_else(|| "no address".to_owned(), |error| error.to_string());
    bail!("nothing answers at {address} ({error})")
}

/// The next packet: its number in the exchange, and its payload.
fn packet(stream: &mut impl Read) -> Result<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let [a, b, c, number] = header;
    let mut payload = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
    stream.read_exact(&mut payload)?;
    Ok((number, payload))
}

/// The text of an error packet: a marker, two bytes of code, perhaps a state of six bytes, and the text.
fn error_message(payload: &[u8]) -> String {
    let text = payload.get(3..).unwrap_or_default();
    let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
    let text = String::from_utf8_lossy(text);
    if payload.first() == Some(&0xff) {
        text.into_owned()
    } else {
        "it asks for more than an empty password".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of a greeting: protocol version, server version, and the rest that is of no interest.
    fn greeting(version: &str) -> Vec<u8> {
        [&[10], version.as_bytes(), &[0, 11, 0, 0, 0]].concat()
    }

    #[test]
    fn a_greeting_tells_the_server_and_its_version() {
        let of = |version: &str| Greeting::parse(&greeting(version)).unwrap();
        let mariadb = Greeting { mariadb: true, version: "10.11.19".to_owned() };
        assert_eq!(of("5.5.5-10.11.19-MariaDB-0+deb12u1"), mariadb);
        assert_eq!(of("11.8.3-MariaDB-log"), Greeting { mariadb: true, version: "11.8.3".to_owned() });
        assert_eq!(of("9.7.4-2"), Greeting { mariadb: false, version: "9.7.4".to_owned() });
        assert_eq!(of("8.0.43-0ubuntu0.24.04.1").major(), 8);
    }

    #[test]
    fn anything_else_is_an_error() {
        let refusal = b"\xff\x10\x04#08004Too many connections";
        assert_eq!(Greeting::parse(refusal).unwrap_err().to_string(), "Too many connections");
        let blocked = b"\xff\x69\x04Host '10.0.0.9' is not allowed to connect";
        assert!(Greeting::parse(blocked).unwrap_err().to_string().starts_with("Host '10.0.0.9'"));
        assert!(Greeting::parse(b"SSH-2.0-OpenSSH").is_err());
        assert!(Greeting::parse(&[10, b'9']).is_err());
        assert!(Greeting::parse(&[]).is_err());
    }

    #[test]
    fn packets_are_read_whole_or_not_at_all() {
        assert_eq!(packet(&mut &b"\x02\0\0\x07ab-"[..]).unwrap(), (7, b"ab".to_vec()));
        assert!(packet(&mut &b"\x03\0\0\x07ab"[..]).is_err());
    }
}
