//! Azurite, the emulator of Azure Storage, as a process of its own.
//!
//! `cargo xtask test` installs it and says where in the environment variable `AZURITE`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::{Object, number};

/// Where Azurite's program for blobs is; or `none`, to do without these tests.
const AZURITE: &str = "AZURITE";

/// The account of every emulator of Azure Storage, which everybody knows.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const CONTAINER: &str = "container";

/// How long Azurite may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why this run does without it, if it does.
pub(crate) fn without() -> Option<String> {
    std::env::var(AZURITE).is_ok_and(|program| program == "none").then(|| format!("{AZURITE}=none"))
}

/// The process; it ends with this.
pub(crate) struct Azurite {
    process: Child,
    address: SocketAddr,
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Azurite {
    /// Starts it, and makes a container.
    pub(crate) fn start() -> Self {
        let program = std::env::var(AZURITE).unwrap_or_else(|_| {
            panic!(
                "{AZURITE} does not say where Azurite is: `cargo xtask test` installs it, `{AZURITE}=none` does without"
            )
        });
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let process = Command::new("node")
            .arg(program)
            .args(["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"])
            .args(["--blobHost", "127.0.0.1", "--blobPort", &free.port().to_string()])
            .stdout(Stdio::null())
            .spawn()
            .expect("node, for Azurite");
        let azurite = Self { process, address: free };
        let began = Instant::now();
        let mut last = String::new();
        while began.elapsed() < PATIENCE {
            match azurite.make_container() {
                Ok(answer) if answer.starts_with("HTTP/1.1 201") => return azurite,
                Ok(answer) => last = answer,
                Err(error) => last = error.to_string(),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("Azurite does not work: {last}");
    }

    /// The client that is tested cannot make containers.
    fn make_container(&self) -> std::io::Result<String> {
        let (date, version) = ("Tue, 14 Nov 2023 22:13:20 GMT", "2023-11-03");
        let headers = format!("x-ms-date:{date}\nx-ms-version:{version}\n");
        let resource = format!("/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container");
        let to_sign = format!("PUT{}{headers}{resource}", "\n".repeat(12));
        let key = BASE64_STANDARD.decode(KEY).expect("the key is Base64");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        let signature = BASE64_STANDARD.encode(ring::hmac::sign(&key, to_sign.as_bytes()));
        let request = format!(
            "PUT /{ACCOUNT}/{CONTAINER}?restype=container HTTP/1.1\r\nHost: {}\r\nx-ms-date: {date}\r\n\
             x-ms-version: {version}\r\nAuthorization: SharedKey {ACCOUNT}:{signature}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n",
            self.address
        );
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// A new object.
    pub(crate) fn object(&self) -> Object {
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Object {
            url: format!("az://{CONTAINER}/tests/{}/registry.db", number()),
            settings: vec![
                setting("AZURE_STORAGE_ENDPOINT", &format!("http://{}/{ACCOUNT}", self.address)),
                setting("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
                setting("REGISTRY_BLOB_KEY", KEY),
            ],
            server: self.address,
        }
    }
}
