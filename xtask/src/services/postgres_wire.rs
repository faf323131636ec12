//! What PostgreSQL's protocol is needed for here: whether it lets a user in without a password, which version it is, and
//! one query of one value.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};

use super::mysql_wire::connect;

/// Version 3.0 of the protocol.
const PROTOCOL: i32 = 3 << 16;

/// A connection of a user whom the server trusts.
pub(crate) struct Connection {
    stream: TcpStream,
    /// The number alone: 15.19. PgBouncer gives the version of the server behind it.
    pub(crate) version: String,
}

impl Connection {
    pub(crate) fn open(address: &str, user: &str, database: &str) -> Result<Self> {
        let mut stream = connect(address)?;
        stream.write_all(&startup(user, database)?)?;
        let mut version = String::new();
        loop {
            match message(&mut stream).with_context(|| format!("no answer from {address}"))? {
                (b'R', body) => {
                    ensure!(body == [0; 4], "PostgreSQL at {address} asks {user} for a password");
                }
                (b'S', body) => {
                    if let Some(("server_version", value)) = parameter(&body) {
                        version = value.split_whitespace().next().unwrap_or_default().to_owned();
                    }
                }
                (b'E', body) => bail!("{}", error_message(&body)),
                (b'Z', _) => return Ok(Self { stream, version }),
                _ => {}
            }
        }
    }

    /// The first value of the first row, as text.
    pub(crate) fn query(&mut self, query: &str) -> Result<Option<String>> {
        let mut request = vec![b'Q'];
        request.extend(i32::try_from(query.len() + 5)?.to_be_bytes());
        request.extend(query.as_bytes());
        request.push(0);
        self.stream.write_all(&request)?;
        let mut found = None;
        let mut failure = None;
        loop {
            match message(&mut self.stream)? {
                (b'D', row) => found = found.or_else(|| first_value(&row)),
                (b'E', body) => failure = Some(error_message(&body)),
                (b'Z', _) => return failure.map_or(Ok(found), |failure| bail!("{failure}")),
                _ => {}
            }
        }
    }
}

fn startup(user: &str, database: &str) -> Result<Vec<u8>> {
    let mut body = PROTOCOL.to_be_bytes().to_vec();
    for word in ["user", user, "database", database, ""] {
        body.extend(word.as_bytes());
        body.push(0);
    }
    let length = i32::try_from(body.len() + 4)?;
    Ok([&length.to_be_bytes(), body.as_slice()].concat())
}

/// The next message: its type, and its body.
fn message(stream: &mut impl Read) -> Result<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    stream.read_exact(&mut header)?;
    let [kind, length @ ..] = header;
    let length = usize::try_from(u32::from_be_bytes(length))?.checked_sub(4).context("that is not PostgreSQL")?;
    // Nothing that is asked here has long answers; a stranger on the port may seem to announce gigabytes.
    ensure!(length < 1 << 20, "that is not PostgreSQL");
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
}

/// The name and the value in a message of a parameter's state.
fn parameter(body: &[u8]) -> Option<(&str, &str)> {
    let mut words = body.split(|byte| *byte == 0).map(std::str::from_utf8);
    Some((words.next()?.ok()?, words.next()?.ok()?))
}

/// The field M of an error.
fn error_message(body: &[u8]) -> String {
    let field = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"M"));
    String::from_utf8_lossy(field.unwrap_or(b"PostgreSQL refuses, and does not say why")).into_owned()
}

/// The first value of a row: two bytes that count the values, then for each its length, or -1 for null, and its bytes.
fn first_value(row: &[u8]) -> Option<String> {
    let (length, rest) = row.get(2..)?.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    Some(String::from_utf8_lossy(rest.get(..length)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_startup_message_has_its_own_length() {
        let message = startup("me", "db").unwrap();
        assert_eq!(message[..4], i32::try_from(message.len()).unwrap().to_be_bytes());
        assert_eq!(&message[4..], b"\0\x03\0\0user\0me\0database\0db\0\0");
    }

    #[test]
    fn messages_are_taken_apart() {
        assert_eq!(message(&mut &b"Z\0\0\0\x05I"[..]).unwrap(), (b'Z', b"I".to_vec()));
        assert!(message(&mut &b"HTTP/1.1 400"[..]).is_err());
        assert!(message(&mut &b"Z\0\0\0\x01"[..]).is_err());
        assert_eq!(parameter(b"server_version\x0015.19 (Debian)\0"), Some(("server_version", "15.19 (Debian)")));
        assert_eq!(error_message(b"SFATAL\0C28000\0Mrole \"x\" does not exist\0\0"), "role \"x\" does not exist");
        assert_eq!(first_value(b"\0\x01\0\0\0\x01t"), Some("t".to_owned()));
        assert_eq!(first_value(b"\0\x01\xff\xff\xff\xff"), None);
    }
}
