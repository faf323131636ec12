//! Settings of a store, which are named and found as its own tools do: in the environment.

use feast_registry_core::config::ObjectStoreConfig;

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
