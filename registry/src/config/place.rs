//! Where a registry is.

use std::path::Path;

use feast_registry_core::config::RegistryUrl;

use super::block::Block;
use super::yaml::Value;
use crate::known::{may_be_foreign, usual_scheme};

/// Schemes of `registry_type: file`. Feast has no `az`, `abfss` and `memory`.
const FILES: [&str; 6] = ["file", "s3", "gs", "az", "abfss", "memory"];

/// Feast's classes for the schemes. It reaches Azure by `https`, which needs the class to be named.
const STORES: [(&str, &str); 8] = [
    ("FileRegistryStore", "file"),
    ("S3RegistryStore", "s3"),
    ("GCSRegistryStore", "gs"),
    // To a class that is named, the scheme says nothing.
    ("S3RegistryStore", "s3a"),
    ("GCSRegistryStore", "gcs"),
    ("AzureRegistryStore", "https"),
    ("AzureRegistryStore", "az"),
    ("AzureRegistryStore", "abfss"),
];

/// The class that a block names for a file.
pub(super) fn store_type<'a>(block: &Block<'a>) -> Option<&'a str> {
    let store = block.nullable_string("registry_store_type")?;
    if !STORES.iter().any(|&(name, _)| name == store) {
        block.must_be(
            "registry_store_type",
            "`FileRegistryStore`, `S3RegistryStore`, `GCSRegistryStore` or `AzureRegistryStore`",
            Value::Str(store),
        );
        return None;
    }
    Some(store)
}

/// What the path of a registry is, without showing it.
fn kind(text: &str, url: &RegistryUrl) -> String {
    if text.contains("://") { format!("a URL with `{}://`", url.scheme()) } else { "a path".to_owned() }
}

/// What `path` says with `registry_type: sql`.
pub(super) fn database_url(text: &str) -> Result<RegistryUrl, String> {
    let url: RegistryUrl = text.parse().map_err(|error| format!("is wrong: {error}"))?;
    if let Some(usual) = usual_scheme(url.scheme()).filter(|usual| !FILES.contains(usual)) {
        return Err(format!("is {}; write `{usual}://` instead", kind(text, &url)));
    }
    if FILES.contains(&url.scheme()) || usual_scheme(url.scheme()).is_some() {
        return Err(format!(
            "must be the URL of a database with `registry_type: sql`, as `sqlite:///registry.db` or \
             `postgresql+psycopg://user:password@host/database`; it is {}",
            kind(text, &url)
        ));
    }
    Ok(url)
}

/// What names a registry in a file: its path, relative to `folder`, or the URL of an object. `store` is the class that the
/// block names for it.
pub(super) fn file_url(text: &str, store: Option<&str>, folder: &Path) -> Result<RegistryUrl, String> {
    let mut url: RegistryUrl = text.parse().map_err(|error| format!("is wrong: {error}"))?;
    match store {
        Some(store) if !STORES.contains(&(store, url.scheme())) => {
            return Err(format!(
                "is {}, which is not for `registry_store_type: {store}`; leave `registry_store_type` out, or change \
                 one of the two",
                kind(text, &url)
            ));
        }
        Some(_) => {
            if let Some(usual) = usual_scheme(url.scheme()) {
                let rest = &text[url.scheme().len()..];
                url = format!("{usual}{rest}").parse().map_err(|error| format!("is wrong: {error}"))?;
            }
        }
        None if let Some(usual) = usual_scheme(url.scheme()).filter(|usual| FILES.contains(usual)) => {
            return Err(format!("is {}; write `{usual}://` instead", kind(text, &url)));
        }
        // Whether anything serves it, who opens it says.
        None if FILES.contains(&url.scheme()) || may_be_foreign(url.scheme()) => {}
        None => {
            return Err(format!(
                "is {}; a registry in a file is a path or a URL with `{}://`, and one in a database needs \
                 a block with `registry_type: sql` and the URL as its `path`",
                kind(text, &url),
                FILES.join("://`, `")
            ));
        }
    }
    // Feast's rule: the folder of the repository, where the file is that is read here.
    match url.database() {
        Some(path) if url.scheme() == "file" => Ok(RegistryUrl::from_path(folder.join(path).to_string_lossy())),
        _ => Ok(url),
    }
}
