//! Servers of databases that refuse, and what is said then: the remedy for this refusal, and for no other.

use std::io::Write;
use std::net::TcpListener;

use super::*;

/// A server that speaks PostgreSQL as far as this answer to whoever connects; its URL, with these credentials.
fn postgres(credentials: &str, answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 4];
            stream.read_exact(&mut request).expect("a length");
            let mut request = vec![0; u32::from_be_bytes(request) as usize - 4];
            stream.read_exact(&mut request).expect("a request to start");
            stream.write_all(answer).expect("an answer");
            // Until the client has gone.
            drop(stream.read(&mut [0]));
        }
    });
    format!("postgresql://{credentials}@127.0.0.1:{port}/feast?sslmode=disable")
}

/// `AuthenticationCleartextPassword`.
const ASKS: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
/// `ErrorResponse`: `invalid_password`.
const REFUSES: &[u8] = b"E\0\0\0\x26SFATAL\0VFATAL\0C28P01\0Mwrong word\0\0";

#[test]
fn a_password_that_is_missing_or_wrong_is_named_as_such() {
    let fixture = Fixture::empty();
    for (url, expected) in [
        (postgres("me", ASKS), "the server asks for a password, and there is none in the URL, nor in PGPASSWORD"),
        (postgres("me:hunter2", REFUSES), "the password is that of the URL, else that of PGPASSWORD"),
    ] {
        for command in [&["list", "projects"][..], &["serve", "--port", "0"]] {
            let ran = Ran::of(
                fixture
                    .command(command)
                    .env("FEAST_REGISTRY_URL", &url)
                    .env_remove("PGPASSWORD")
                    .output()
                    .expect("it runs"),
            );
            assert_eq!(ran.code, 1, "{}", ran.stderr);
            assert!(ran.stderr.contains(expected) && !ran.stderr.contains("hunter2"), "{}", ran.stderr);
            // That is the remedy for a registry that is not there.
            assert!(
                !ran.stderr.contains("feast-registry serve") && !ran.stderr.contains("--registry"),
                "{}",
                ran.stderr
            );
        }
    }
}
