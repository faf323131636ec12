//! Google Cloud Storage.

use std::sync::Arc;

use feast_registry_core::config::{ObjectStoreConfig, RegistryUrl};
use feast_registry_core::{Error, Result};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{Attributes, StaticCredentialProvider};

use super::settings::{Settings, checked, is_plain};
use super::{Clients, Place, key_in_bucket, unusable};

pub(super) fn open(url: &RegistryUrl, config: &ObjectStoreConfig) -> Result<Place> {
    let bucket = url.host().ok_or_else(|| Error::config(format!("`{url}` names no bucket")))?;
    let path = key_in_bucket(url)?;
    let settings = Settings::new(config);
    let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket);
    let mut endpoint = settings.get("GOOGLE_BASE_URL");
    for (name, value) in settings.all("GOOGLE_") {
        if let Ok(key) = name.parse::<GoogleConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    // What Google's own clients take for an emulator, which wants no credentials.
    if let Some(emulator) = settings.get("STORAGE_EMULATOR_HOST") {
        let base = if emulator.contains("://") { emulator } else { format!("http://{emulator}") };
        // To skip signatures is not enough for the client: when it writes it asks for a token all the same.
        let nobody = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
        builder = builder.with_config(GoogleConfigKey::BaseUrl, &base).with_credentials(Arc::new(nobody));
        endpoint = Some(base);
    }
    let endpoint = checked(url, endpoint)?;
    if endpoint.as_deref().is_some_and(is_plain) {
        let allow = "allow_http".parse::<GoogleConfigKey>().map_err(|error| unusable(url, error))?;
        builder = builder.with_config(allow, "true");
    }
    let clients = Clients::new(url, |retry| builder.clone().with_retry(retry).build())?;
    let location = format!("gs://{bucket}/{path}");
    let is_trusted = endpoint.is_none();
    let (attributes, deletion) = (Attributes::new(), "storage.objects.delete");
    Ok(Place { clients, path, location, attributes, endpoint, is_trusted, deletion })
}
