//! Who is at the other end of a connection.

use std::fmt;
use std::net::IpAddr;

/// What is known of a client before it says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// It is at this address.
    Address(IpAddr),
    /// It is a process of this machine, of the user with this number, and has come by a Unix socket.
    User(u32),
}

impl Peer {
    /// What is before the number of a user.
    pub(crate) const USER: &str = "uid:";
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // An IPv4 client of a socket that listens to both is shown as what it is.
            Self::Address(address) => address.to_canonical().fmt(f),
            Self::User(number) => write!(f, "{}{number}", Self::USER),
        }
    }
}
