//! Azure Blob Storage.
//!
//! Three forms of URL: `az://container/path`, for the account in `AZURE_STORAGE_ACCOUNT_NAME`;
//! `abfss://container@account.dfs.core.windows.net/path`; and Feast's own, `https://account.blob.core.windows.net/container/path`.

use feast_registry_core::config::{ObjectStoreConfig, RegistryUrl};
use feast_registry_core::{Error, Result};
use object_store::Attributes;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::settings::{Settings, checked, is_plain};
use super::{Clients, Place, key};

pub(super) fn open(url: &RegistryUrl, config: &ObjectStoreConfig) -> Result<Place> {
    let missing = |what: &str| Error::config(format!("`{url}` names no {what}"));
    let host = url.host().ok_or_else(|| missing("container"))?;
    let (container, path, account) = match (url.scheme(), url.username()) {
        ("https", _) => {
            let (container, path) = url.database().and_then(|path| path.split_once('/')).unzip();
            (container.ok_or_else(|| missing("container"))?, path, Some(host))
        }
        (_, Some(container)) => (container, url.database(), Some(host)),
        _ => (host, url.database(), None),
    };
    let path = key(url, path)?;
    let settings = Settings::new(config);
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in settings.all("AZURE_") {
        if let Ok(key) = name.parse::<AzureConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = settings.get("MSI_ENDPOINT").or_else(|| settings.get("IDENTITY_ENDPOINT")) {
        builder = builder.with_msi_endpoint(endpoint);
    }
    // The account's key, by the name that Feast has for it.
    if let Some(key) = settings.get("REGISTRY_BLOB_KEY") {
        builder = builder.with_access_key(key);
    }
    if let Some((account, domain)) = account.map(|host| host.split_once('.').unwrap_or((host, ""))) {
        builder = builder.with_account(account);
        if domain.contains("fabric.microsoft.com") {
            builder = builder.with_use_fabric_endpoint(true);
        }
    }
    let endpoint = settings.get("AZURE_STORAGE_ENDPOINT").or_else(|| settings.get("AZURE_ENDPOINT"));
    let endpoint = checked(url, endpoint)?;
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint.clone()).with_allow_http(is_plain(endpoint));
    }
    builder = builder.with_container_name(container);
    let is_emulator = settings.get("AZURE_STORAGE_USE_EMULATOR").is_some_and(|value| value != "false");
    let clients = Clients::new(url, |retry| builder.clone().with_retry(retry).build())?;
    let location = match account {
        Some(account) if url.scheme() == "https" => format!("https://{account}/{container}/{path}"),
        Some(account) => format!("{}://{container}@{account}/{path}", url.scheme()),
        None => format!("{}://{container}/{path}", url.scheme()),
    };
    let is_trusted = endpoint.is_none() && !is_emulator;
    let (attributes, deletion) =
        (Attributes::new(), "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete");
    Ok(Place { clients, path, location, attributes, endpoint, is_trusted, deletion })
}
