//! The files of the bundle, and nothing beside them.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use feast_registry_core::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use tokio::fs::{self, File};
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;
use tonic::body::Body;
use tonic::codegen::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, VARY,
};
use tonic::codegen::http::{Method, Response};

use super::super::answer::takes_gzip;
use super::{INDEX, JSON, insert, is_known, unchanged, unusable};
use crate::parts::GZIP;

/// How much of a file is in memory at once while it is sent.
const PIECE: usize = 64 * 1024;
/// Smaller files are not compressed: they fit in a few packets.
const COMPRESSED_ABOVE: u64 = 4 * 1024;
/// Larger ones are not either, so that the compressed ones take little memory. Feast's largest, but for source maps, has 4.4 MB.
const COMPRESSED_BELOW: u64 = 16 * 1024 * 1024;
/// How many compressed files are kept. Feast's bundle has about ten.
const KEPT: usize = 64;

/// A folder. Cloning gives another handle on the same.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// Without links in it.
    folder: PathBuf,
    /// What large files are when they are compressed, by path, with the tag of what was compressed. One at a time is made.
    compressed: Arc<Mutex<HashMap<PathBuf, (String, Bytes)>>>,
}

/// A file that is there.
struct Found {
    path: PathBuf,
    size: u64,
    /// Tells this state of it from others.
    tag: String,
}

impl Files {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let whole = folder.canonicalize().map_err(|error| unusable(folder, format!("cannot be opened ({error})")))?;
        let index = whole.join(INDEX).canonicalize().ok().filter(|index| index.is_file());
        match index {
            None => Err(unusable(folder, format!("has no {INDEX}"))),
            Some(index) if !index.starts_with(&whole) => {
                Err(unusable(folder, format!("has an {INDEX} that is a link out of it")))
            }
            Some(_) => Ok(Self { folder: whole, compressed: Arc::default() }),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a file holds, if it is there and can be read.
    pub(super) async fn read(&self, path: &str) -> Option<Bytes> {
        let found = self.find(path).await?;
        fs::read(&found.path).await.ok().map(Bytes::from)
    }

    /// The answer to a request for a file, if there is one of this name.
    pub(super) async fn answer(&self, path: &str, method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
        let found = self.find(path).await?;
        let content_type = content_type(&found.path);
        let compresses =
            (COMPRESSED_ABOVE..COMPRESSED_BELOW).contains(&found.size) && is_text(content_type) && takes_gzip(headers);
        // Of what is compressed it is weak: it tells what is sent, not how.
        let tag = format!("{}\"{}\"", if compresses { "W/" } else { "" }, found.tag);
        let mut response = if is_known(&found.tag, headers) {
            unchanged(&tag)
        } else {
            let (length, body) = match compresses {
                true => {
                    let compressed = self.compressed(&found).await.ok()?;
                    (compressed.len() as u64, Body::new(Full::new(compressed)))
                }
                false if *method == Method::HEAD => (found.size, Body::empty()),
                false => (found.size, pieces(File::open(&found.path).await.ok()?, found.size)),
            };
            let mut response = Response::new(body);
            let to = response.headers_mut();
            to.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            to.insert(CONTENT_LENGTH, length.into());
            if compresses {
                to.insert(CONTENT_ENCODING, HeaderValue::from_static(GZIP));
            }
            insert(to, ETAG, &tag);
            response
        };
        let to = response.headers_mut();
        to.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if is_forever(path) {
            to.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
        }
        Some(response)
    }

    /// The file of this path in the folder. Not a folder, nothing that is hidden, and nothing that a link leads out to.
    async fn find(&self, path: &str) -> Option<Found> {
        let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
        let path = path.strip_prefix('/').unwrap_or(&path);
        let is_plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['\\', '\0', ':']);
        if !path.split('/').all(is_plain) {
            return None;
        }
        let path = fs::canonicalize(self.folder.join(path)).await.ok()?;
        let told = fs::metadata(&path).await.ok().filter(|told| told.is_file())?;
        if !path.starts_with(&self.folder) {
            return None;
        }
        let changed = told.modified().ok().and_then(|when| when.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Some(Found { path, size: told.len(), tag: format!("{:x}-{:x}", told.len(), changed.as_nanos()) })
    }

    /// A file, compressed: it is made once.
    async fn compressed(&self, found: &Found) -> io::Result<Bytes> {
        let mut kept = self.compressed.lock().await;
        if let Some((tag, compressed)) = kept.get(&found.path)
            && *tag == found.tag
        {
            return Ok(compressed.clone());
        }
        let content = fs::read(&found.path).await?;
        let compressed = tokio::task::spawn_blocking(move || compress(&content)).await.map_err(io::Error::other)??;
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(found.path.clone(), (found.tag.clone(), compressed.clone()));
        Ok(compressed)
    }
}

fn compress(content: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content)?;
    encoder.finish().map(Bytes::from)
}

/// The first `size` bytes of a file, a piece at a time. If it has become shorter, the answer ends with an error, as it must.
fn pieces(file: File, size: u64) -> Body {
    let pieces = stream::try_unfold((file, size), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
        let read = file.read(&mut piece).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        piece.truncate(read);
        Ok(Some((Frame::data(Bytes::from(piece)), (file, left - read as u64))))
    });
    Body::new(StreamBody::new(pieces))
}

/// Whether what is at this path never changes: its name has a hash of what it holds.
fn is_forever(path: &str) -> bool {
    let is_hash = |part: &str| part.len() >= 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = path.strip_prefix("/static/").and_then(|path| path.rsplit('/').next());
    name.is_some_and(|name| name.split('.').any(is_hash))
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" => super::HTML,
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => JSON,
        "webmanifest" => "application/manifest+json",
        "txt" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/vnd.microsoft.icon",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "ttf" => "font/ttf",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

fn is_text(content_type: &str) -> bool {
    content_type.starts_with("text/") || content_type == JSON || content_type == "image/svg+xml"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_a_hash_in_its_name_never_changes() {
        for (path, is) in [
            ("/static/js/main.9605e968.js", true),
            ("/static/js/main.9605e968.js.map", true),
            ("/static/js/icon.cross.c93bb4f1.chunk.js", true),
            ("/static/media/feast-icon-grey.e5aa0a305d8efd775c4b.svg", true),
            ("/static/js/main.js", false),
            ("/static/js/decade.js", false),
            ("/9605e968.js", false),
            ("/manifest.json", false),
        ] {
            assert_eq!(is_forever(path), is, "{path}");
        }
    }
}
