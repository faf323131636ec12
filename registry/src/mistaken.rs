//! A file that was opened as a registry of another kind than it is.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use feast_registry_core::config::RegistryUrl;
use feast_registry_core::{Error, ErrorKind, proto};
use prost::Message;

/// What every SQLite database begins with.
const SQLITE: &[u8; 16] = b"SQLite format 3\0";

/// The error of opening a registry; where its file is one of another kind, an error that says which.
pub(crate) fn explain(error: Error, url: &RegistryUrl) -> Error {
    let Some(path) = url.database() else { return error };
    let text = match url.scheme() {
        "file" if is_sqlite(Path::new(path)) => format!(
            "`{path}` is a SQLite database, which is no registry file of Feast's file registry; it is opened with \
             `registry_type: sql` and `path: sqlite:///{path}`, or with `--registry sqlite:///{path}`"
        ),
        "sqlite" if error.kind() == ErrorKind::Corrupt && is_message(Path::new(path)) => format!(
            "`{path}` is a registry file as Feast's file registry writes it, which is no SQLite database; it is opened with \
             `registry_type: file` and `path: {path}`, or with `--registry {path}`"
        ),
        _ => return error,
    };
    Error::config(text)
}

fn is_sqlite(path: &Path) -> bool {
    let mut start = [0; SQLITE.len()];
    // What is no file, as a pipe, may have nothing to read for ever.
    path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *SQLITE
}

/// Whether a file is Feast's message of a whole registry.
fn is_message(path: &Path) -> bool {
    let bytes = if path.is_file() { std::fs::read(path).unwrap_or_default() } else { Vec::new() };
    !bytes.is_empty() && proto::core::Registry::decode(&*bytes).is_ok()
}
