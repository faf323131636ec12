//! What `feast-registry serve` is told of the REST API.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use feast_registry::config::{AuthConfig, FeatureStoreConfig};

use super::listen::listen;
use crate::{DEFAULT_REST_PORT, Listener, Login, Ports, RestOptions, Ui};

#[derive(Debug, Args)]
pub(super) struct RestArgs {
    /// Serve Feast's REST API too, over HTTP; with --cert over HTTPS.
    ///
    /// Authentication, permissions, limits and the log are those of gRPC.
    #[arg(long, short = 'r')]
    rest_api: bool,

    /// The port of the REST API; 0 takes a free one, which the start-up line names. If it is that of --port, both share the port.
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_REST_PORT, requires = "rest_api")]
    rest_port: u16,

    /// The address that the REST API listens on, if it is not that of --host.
    #[arg(long, value_name = "HOST", requires = "rest_api")]
    rest_host: Option<String>,

    /// Do not serve gRPC: the REST API alone.
    #[arg(long, requires = "rest_api", conflicts_with = "listen")]
    no_grpc: bool,

    /// Let pages of this origin use the REST API from a browser (CORS), such as https://catalog.example.com.
    ///
    /// `*` allows every origin. May be repeated.
    #[arg(long, value_name = "ORIGIN", requires = "rest_api", value_parser = origin)]
    cors_origin: Vec<String>,

    /// Serve Feast's web UI too, on the port of the REST API: http://localhost:6572.
    ///
    /// Its pages are not in this program. `auto` takes those of the installed feast package; otherwise this is a folder with
    /// them, such as `feast/ui/build` of an installed feast. `auth` of the feature_store.yaml says how people log in: with OIDC, only
    /// Keycloak's discovery URL works; with --tokens nobody can log in, unless a proxy adds the token.
    #[arg(long, value_name = "FOLDER|auto", requires = "rest_api")]
    ui: Option<PathBuf>,
}

impl RestArgs {
    /// The web UI, if it is asked for.
    async fn ui(&self, config: &FeatureStoreConfig) -> Result<Option<Ui>> {
        let Some(folder) = self.ui.clone() else { return Ok(None) };
        let open = move || match folder == Path::new("auto") {
            true => Ui::open(&Ui::find()?),
            false => Ui::open(&folder),
        };
        // Python is asked, and a network file system may take its time.
        let ui = tokio::task::spawn_blocking(open).await??;
        Ok(Some(ui.with_login(&login(&config.auth))))
    }

    /// Listens on what is asked for; for gRPC on a port, unless there is something that listens already.
    pub(super) async fn listen(
        &self,
        host: &str,
        grpc: Result<Listener, u16>,
        config: &FeatureStoreConfig,
    ) -> Result<Ports> {
        const GRPC: [&str; 2] = ["--host", "--port"];
        let of_rest = [if self.rest_host.is_some() { "--rest-host" } else { GRPC[0] }, "--rest-port"];
        if !self.rest_api {
            return Ok(match grpc {
                Ok(listener) => listener.into(),
                Err(port) => listen(GRPC, host, port).await?.into(),
            });
        }
        let mut options = RestOptions::default();
        options.project.clone_from(&config.project);
        options.batch_engine.clone_from(&config.batch_engine);
        options.cors_origins.clone_from(&self.cors_origin);
        options.ui = self.ui(config).await?;
        let rest_host = self.rest_host.as_deref().unwrap_or(host);
        if self.no_grpc {
            return Ok(Ports::Rest(listen(of_rest, rest_host, self.rest_port).await?, options));
        }
        let grpc = match grpc {
            Ok(listener) => listener,
            Err(port) => {
                let listener = listen(GRPC, host, port).await?;
                if self.rest_port == port && port != 0 && rest_host == host {
                    return Ok(Ports::Shared(listener, options));
                }
                listener.into()
            }
        };
        Ok(Ports::Each { grpc, rest: listen(of_rest, rest_host, self.rest_port).await?, options })
    }
}

/// How people log in who look at the pages, where callers log in like this.
fn login(auth: &AuthConfig) -> Login {
    match auth {
        AuthConfig::Oidc(oidc) => Login::Oidc {
            discovery: oidc.auth_discovery_url.clone(),
            client: oidc.ui_client_id.clone().or_else(|| oidc.client_id.clone()).unwrap_or_default(),
        },
        AuthConfig::Kubernetes(_) => Login::Kubernetes,
        _ => Login::None,
    }
}

/// An origin, as browsers send it: they compare it letter by letter.
fn origin(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let is_origin =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte));
    if text == "*" || is_origin {
        return Ok(text.to_ascii_lowercase());
    }
    Err("an origin is a scheme, a host and perhaps a port, as https://catalog.example.com, without a path; or `*`"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_browsers_send() {
        for (text, origin_of_it) in [
            ("*", Some("*")),
            ("https://Catalog.example.com", Some("https://catalog.example.com")),
            ("http://[::1]:3000", Some("http://[::1]:3000")),
            ("catalog.example.com", None),
            ("https://catalog.example.com/", None),
            ("https://catalog.example.com/path", None),
            ("https://", None),
            ("", None),
        ] {
            assert_eq!(origin(text).ok().as_deref(), origin_of_it, "{text}");
        }
    }
}
