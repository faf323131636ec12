//! Settings of a store, which are named and found as its own tools do: in the environment.

use feast_registry_core::config::{ObjectStoreConfig, RegistryUrl};
use feast_registry_core::{Error, Result};

/// The environment, and before it what the configuration says.
pub(super) struct Settings<'a> {
    config: &'a ObjectStoreConfig,
}

impl<'a> Settings<'a> {
    pub(super) fn new(config: &'a ObjectStoreConfig) -> Self {
        Self { config }
    }

    /// One setting.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let configured = self.config.settings.iter().rev().find(|(of, _)| of == name).map(|(_, value)| value.clone());
        configured.or_else(|| std::env::var(name).ok()).filter(|value| !value.is_empty())
    }

    /// All settings whose name begins so. What the configuration says comes last, and so counts.
    pub(super) fn all(&self, prefix: &str) -> Vec<(String, String)> {
        let env =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        env.chain(self.config.settings.iter().cloned())
            .filter(|(name, value)| name.starts_with(prefix) && !value.is_empty())
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect()
    }
}

/// Whether an endpoint is reached without TLS, which must be allowed.
pub(super) fn is_plain(endpoint: &str) -> bool {
    endpoint.starts_with("http://")
}

/// An endpoint that a client of a store can be given: some things that are no address it does not refuse, but panics.
///
/// # Errors
/// `InvalidConfig`, without what may be a secret.
pub(super) fn checked(url: &RegistryUrl, endpoint: Option<String>) -> Result<Option<String>> {
    if let Some(problem) = endpoint.as_deref().and_then(flaw) {
        return Err(Error::config(format!(
            "the address that is configured for the store of `{url}` (its endpoint) {problem}; it is to be as \
             `https://store.example:9000`"
        )));
    }
    Ok(endpoint)
}

/// What is wrong with an endpoint.
fn flaw(endpoint: &str) -> Option<String> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]@!$&'()*+,;=%".contains(c);
    if let Some(unfit) = endpoint.chars().find(|&c| !is_fit(c)) {
        return Some(format!(
            "has the character {unfit:?}, which cannot stand there; in a name or a password write it as `%` and its code"
        ));
    }
    let Some(rest) = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://")) else {
        return Some("does not begin with `http://` or `https://`".to_owned());
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty() || authority.ends_with('@') {
        return Some("names no host".to_owned());
    }
    if authority.matches('@').count() > 1 {
        return Some("has more than one `@` before its host; in a name or a password write `%40`".to_owned());
    }
    reqwest::Url::parse(endpoint).err().map(|error| format!("is none ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault: with some of them the client panicked.
    #[test]
    fn an_endpoint_that_is_no_address_is_refused_and_not_told() {
        for endpoint in ["http://store:9000", "https://me:pa%5Ess@store/base", "http://[::1]:9000/", "http://10.0.0.1"]
        {
            assert_eq!(flaw(endpoint), None, "{endpoint}");
        }
        let url: RegistryUrl = "s3://bucket/registry.db".parse().expect("a URL");
        for endpoint in [
            "http://me:geheim^@store",
            "http://st ore",
            "http://me:geheim/x@store",
            "http://me:geheim@a@store",
            "me:geheim@store:9000",
            "http:///x",
            "http://me:geheim@",
            "http://store:99999",
            "http://store?x=geheim",
            "http://st%20ore",
            "http://me:gehei\u{fc}m@store",
        ] {
            let error = checked(&url, Some(endpoint.to_owned())).expect_err(endpoint);
            assert_eq!(error.kind(), feast_registry_core::ErrorKind::InvalidConfig, "{endpoint}");
            assert!(!error.to_string().contains("geheim"), "{endpoint}: {error}");
        }
    }
}
