//! Just enough of a database URL to reach the server that it names.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

/// `scheme://user[:password]@host[:port]/database`, without percent-encoding.
///
/// It has no `Debug`: a password must not get into a log by accident.
pub(crate) struct Url {
    pub(crate) scheme: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
}

impl Url {
    /// Errors do not repeat the text, which may hold a password.
    pub(crate) fn parse(text: &str, default_port: u16) -> Result<Self> {
        let (scheme, rest) =
            text.split_once("://").context("it is not of the form scheme://user@host:port/database")?;
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = database.split('?').next().unwrap_or_default();
        // A password may hold an @ of its own.
        let (credentials, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        // The last colon is not the port's within the brackets of an IPv6 address.
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().context("its port is not a number")?),
            _ => (address, default_port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        ensure!(!host.is_empty(), "it names no host");
        Ok(Self {
            scheme: scheme.to_owned(),
            user: decode(user),
            password: decode(password),
            host: host.to_owned(),
            port,
            database: decode(database),
        })
    }

    /// A server of this machine, that trusts the user.
    pub(crate) fn local(scheme: &str, user: &str, port: u16, database: &str) -> Self {
        Self {
            scheme: scheme.to_owned(),
            user: user.to_owned(),
            password: String::new(),
            host: "127.0.0.1".to_owned(),
            port,
            database: database.to_owned(),
        }
    }

    /// The same user, password and database on another port of this machine.
    pub(crate) fn moved_to(&self, port: u16) -> Self {
        Self {
            scheme: self.scheme.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            host: "127.0.0.1".to_owned(),
            port,
            database: self.database.clone(),
        }
    }

    /// As `host:port`: what may be printed of it.
    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// All of it. Not for printing, unless it is known to hold no password.
    pub(crate) fn text(&self) -> String {
        let password = if self.password.is_empty() { String::new() } else { format!(":{}", encode(&self.password)) };
        format!("{}://{}{password}@{}/{}", self.scheme, encode(&self.user), self.address(), encode(&self.database))
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_and_put_together_again() {
        let url = Url::parse("postgresql://me:p%40ss%3A@db.example:6000/feast?sslmode=require", 5432).unwrap();
        assert_eq!((url.user.as_str(), url.password.as_str()), ("me", "p@ss:"));
        assert_eq!((url.address().as_str(), url.database.as_str()), ("db.example:6000", "feast"));
        assert_eq!(url.text(), "postgresql://me:p%40ss%3A@db.example:6000/feast");
    }

    #[test]
    fn what_is_not_said_has_defaults() {
        let url = Url::parse("mysql://root@[::1]/test", 3306).unwrap();
        assert_eq!((url.address().as_str(), url.password.as_str()), ("[::1]:3306", ""));
        assert_eq!(Url::local("mysql", "root", 4000, "test").text(), "mysql://root@127.0.0.1:4000/test");
    }

    #[test]
    fn an_error_does_not_tell_the_password() {
        for text in ["root:secret@localhost", "mysql://root:secret@localhost:port/test", "mysql://root:secret@/test"] {
            let error = Url::parse(text, 1).err().unwrap();
            assert!(!format!("{error:#}").contains("secret"));
        }
    }
}
