//! Amazon S3 and what speaks its protocol.

use feast_registry_core::config::{ObjectStoreConfig, RegistryUrl};
use feast_registry_core::{Error, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{Attribute, AttributeValue, Attributes};

use super::settings::{Settings, checked, is_plain};
use super::{Clients, Place, key_in_bucket};

/// Parameters of boto3's `put_object`, each with the setting of the client that does the same.
const CLIENT: [(&str, &str); 4] = [
    ("ServerSideEncryption", "aws_server_side_encryption"),
    ("SSEKMSKeyId", "aws_sse_kms_key_id"),
    ("BucketKeyEnabled", "aws_sse_bucket_key_enabled"),
    ("RequestPayer", "aws_request_payer"),
];

/// The same, which are attributes of the object.
const ATTRIBUTES: [(&str, Attribute); 6] = [
    ("StorageClass", Attribute::StorageClass),
    ("ContentType", Attribute::ContentType),
    ("ContentEncoding", Attribute::ContentEncoding),
    ("ContentLanguage", Attribute::ContentLanguage),
    ("ContentDisposition", Attribute::ContentDisposition),
    ("CacheControl", Attribute::CacheControl),
];

pub(super) fn open(url: &RegistryUrl, config: &ObjectStoreConfig) -> Result<Place> {
    let bucket = url.host().ok_or_else(|| Error::config(format!("`{url}` names no bucket")))?;
    let path = key_in_bucket(url)?;
    let settings = Settings::new(config);
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
    for (name, value) in settings.all("AWS_") {
        // Not all that begins so is for a client, and much of it is not for this one.
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    // Feast's own variable comes before those of AWS, as it does in Feast.
    let endpoint = ["FEAST_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
        .into_iter()
        .find_map(|name| settings.get(name));
    let endpoint = checked(url, endpoint)?;
    if let Some(endpoint) = &endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint).with_allow_http(is_plain(endpoint));
    }
    let mut attributes = Attributes::new();
    for (name, value) in &config.s3_additional_kwargs {
        let setting =
            CLIENT.iter().find(|(of, _)| of == name).and_then(|(_, key)| key.parse::<AmazonS3ConfigKey>().ok());
        let attribute = ATTRIBUTES.iter().find(|(of, _)| of == name).map(|(_, attribute)| attribute.clone());
        match (setting, attribute) {
            (Some(key), _) => builder = builder.with_config(key, value),
            (None, Some(attribute)) => drop(attributes.insert(attribute, AttributeValue::from(value.clone()))),
            (None, None) => {
                let names = CLIENT.iter().map(|(name, _)| *name).chain(ATTRIBUTES.iter().map(|(name, _)| *name));
                return Err(Error::config(format!(
                    "`s3_additional_kwargs` has `{name}`, which cannot be passed on to S3; what can be is {}",
                    names.collect::<Vec<_>>().join(", ")
                )));
            }
        }
    }
    let clients = Clients::new(url, |retry| builder.clone().with_retry(retry).build())?;
    let location = format!("s3://{bucket}/{path}");
    let is_trusted = endpoint.is_none();
    Ok(Place { clients, path, location, attributes, endpoint, is_trusted, deletion: "s3:DeleteObject" })
}
