//! What the URL of a registry says about the connection: libpq's options, and its environment variables for those that
//! the URL does not have.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use feast_registry_core::config::RegistryUrl;
use feast_registry_core::{Error, Result};
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslMode, TargetSessionAttrs};

/// How long connecting may take, unless `connect_timeout` says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call of the registry waits for the server, unless a `statement_timeout` makes the server itself give up
/// sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How much longer than the server's own timeout to wait for it to say so.
const MARGIN: Duration = Duration::from_secs(2);

/// The options that are understood, each with the environment variable that stands in for it.
const OPTIONS: [(&str, Option<&str>); 19] = [
    ("host", Some("PGHOST")),
    ("port", Some("PGPORT")),
    ("user", Some("PGUSER")),
    ("password", Some("PGPASSWORD")),
    ("dbname", Some("PGDATABASE")),
    ("options", Some("PGOPTIONS")),
    ("application_name", Some("PGAPPNAME")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS")),
    ("keepalives", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("tcp_user_timeout", None),
];

/// How much of the server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verify {
    /// Nothing: the connection is encrypted, and that is all (`sslmode` `prefer` and `require`).
    Nothing,
    /// Who has signed it (`verify-ca`).
    Issuer,
    /// That, and that it is of the host that was asked for (`verify-full`).
    Host,
}

/// How to connect.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) config: Config,
    pub(crate) verify: Verify,
    /// `sslrootcert`: a file, or `system` for the certificates that the operating system trusts.
    pub(crate) root_certificate: Option<String>,
    /// `sslcert` and `sslkey`: files.
    pub(crate) identity: Option<(String, String)>,
    /// How long to wait for an answer.
    pub(crate) answer_timeout: Duration,
}

impl Options {
    /// Reads them from a URL; `env` gives the value of an environment variable.
    pub(crate) fn new(url: &RegistryUrl, env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let wrong = |problem: fmt::Arguments<'_>| Error::config(format!("the registry's URL `{url}`: {problem}"));
        url.refuse_options_but(&OPTIONS.map(|(known, _)| known))?;
        let option = |name: &str| {
            let in_url = url.query().iter().rev().find(|(of, _)| of == name).map(|(_, value)| value.clone());
            let variable = OPTIONS.iter().find(|(known, _)| *known == name).and_then(|(_, variable)| *variable);
            in_url.or_else(|| env(variable?).filter(|value| !value.is_empty()))
        };

        let mut config = Config::new();
        config.application_name("feast-registry").keepalives_idle(Duration::from_secs(60));
        let hosts = url.host().filter(|host| !host.is_empty()).map(str::to_owned).or_else(|| option("host"));
        // Several hosts may be given with commas between, as to libpq.
        for host in hosts.as_deref().unwrap_or("localhost").split(',') {
            config.host(host);
        }
        let number = |name: &str| -> Result<Option<u64>> {
            let parse = |value: String| {
                let wrong = || wrong(format_args!("`{name}` must be a whole number, and is `{value}`"));
                value.parse::<u64>().map_err(|_| wrong())
            };
            option(name).map(parse).transpose()
        };
        match url.port() {
            Some(port) => drop(config.port(port)),
            None => {
                for port in option("port").iter().flat_map(|ports| ports.split(',')) {
                    let wrong = || wrong(format_args!("`port` must be a number from 1 to 65535, and is `{port}`"));
                    config.port(port.parse().map_err(|_| wrong())?);
                }
            }
        }
        let user = url.username().map(str::to_owned).or_else(|| option("user")).or_else(|| env("USER"));
        config.user(user.ok_or_else(|| wrong(format_args!("it names no user to connect as")))?);
        if let Some(password) = url.password().map(str::to_owned).or_else(|| option("password")) {
            config.password(password);
        }
        if let Some(database) = url.database().map(str::to_owned).or_else(|| option("dbname")) {
            config.dbname(database);
        }
        let session = option("options").unwrap_or_default();
        if !session.is_empty() {
            config.options(&session);
        }
        if let Some(name) = option("application_name") {
            config.application_name(name);
        }
        // Zero is without a limit, as in libpq.
        match number("connect_timeout")? {
            Some(0) => {}
            Some(seconds) => drop(config.connect_timeout(Duration::from_secs(seconds))),
            None => drop(config.connect_timeout(CONNECT_TIMEOUT)),
        }
        if let Some(on) = number("keepalives")? {
            config.keepalives(on != 0);
        }
        if let Some(seconds) = number("keepalives_idle")? {
            config.keepalives_idle(Duration::from_secs(seconds));
        }
        if let Some(seconds) = number("keepalives_interval")? {
            config.keepalives_interval(Duration::from_secs(seconds));
        }
        if let Some(milliseconds) = number("tcp_user_timeout")? {
            config.tcp_user_timeout(Duration::from_millis(milliseconds));
        }
        let choice = |name: &str, value: &str, accepted: &str| {
            wrong(format_args!("`{name}` must be one of {accepted}, and is `{value}`"))
        };
        if let Some(value) = option("target_session_attrs") {
            config.target_session_attrs(match value.as_str() {
                "any" => TargetSessionAttrs::Any,
                "read-write" => TargetSessionAttrs::ReadWrite,
                "read-only" => TargetSessionAttrs::ReadOnly,
                _ => return Err(choice("target_session_attrs", &value, "any, read-write, read-only")),
            });
        }
        if let Some(value) = option("channel_binding") {
            config.channel_binding(match value.as_str() {
                "disable" => ChannelBinding::Disable,
                "prefer" => ChannelBinding::Prefer,
                "require" => ChannelBinding::Require,
                _ => return Err(choice("channel_binding", &value, "disable, prefer, require")),
            });
        }
        if let Some(value) = option("load_balance_hosts") {
            config.load_balance_hosts(match value.as_str() {
                "disable" => LoadBalanceHosts::Disable,
                "random" => LoadBalanceHosts::Random,
                _ => return Err(choice("load_balance_hosts", &value, "disable, random")),
            });
        }

        let root_certificate = option("sslrootcert");
        let mode = option("sslmode").unwrap_or_else(|| "prefer".to_owned());
        let (mode, verify) = match mode.as_str() {
            "disable" => (SslMode::Disable, Verify::Nothing),
            "allow" | "prefer" => (SslMode::Prefer, Verify::Nothing),
            // As in libpq: whoever names the issuer wants it checked.
            "require" if root_certificate.is_some() => (SslMode::Require, Verify::Issuer),
            "require" => (SslMode::Require, Verify::Nothing),
            "verify-ca" => (SslMode::Require, Verify::Issuer),
            "verify-full" => (SslMode::Require, Verify::Host),
            _ => return Err(choice("sslmode", &mode, "disable, allow, prefer, require, verify-ca, verify-full")),
        };
        config.ssl_mode(mode);
        let identity = match (option("sslcert"), option("sslkey")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(wrong(format_args!("`sslcert` and `sslkey` go together"))),
        };
        let answer_timeout = statement_timeout(&session).map_or(ANSWER_TIMEOUT, |timeout| timeout + MARGIN);
        Ok(Self { config, verify, root_certificate, identity, answer_timeout })
    }
}

/// The `statement_timeout` that the server is told in `options`, if there is one.
fn statement_timeout(options: &str) -> Option<Duration> {
    let (_, rest) = options.rsplit_once("statement_timeout=")?;
    duration(rest.split_whitespace().next()?)
}

/// A timeout as PostgreSQL writes it: in milliseconds, or with a unit. `None` for zero, which is none.
pub(crate) fn duration(value: &str) -> Option<Duration> {
    let digits = value.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let number = u64::from_str(digits).ok().filter(|number| *number > 0)?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match &value[digits.len()..] {
        "" | "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "min" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86_400),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str, env: &[(&str, &str)]) -> Result<Options> {
        let value = |name: &str| env.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned());
        Options::new(&url.parse().expect("a URL"), value)
    }

    fn problem(url: &str) -> String {
        parse(url, &[("USER", "me")]).expect_err(url).to_string()
    }

    #[test]
    fn a_url_says_how_to_connect() {
        let url = "postgresql+psycopg://feast:s%20cret@db:6432/registry?application_name=ours&connect_timeout=3\
                   &options=-csearch_path%3Dteam%20-cstatement_timeout%3D5s&sslmode=verify-full&tcp_user_timeout=1500";
        let options = parse(url, &[]).expect("options");
        let config = &options.config;
        assert_eq!((config.get_user(), config.get_password()), (Some("feast"), Some(&b"s cret"[..])));
        assert_eq!((config.get_dbname(), config.get_ports()), (Some("registry"), &[6432][..]));
        assert_eq!(config.get_options(), Some("-csearch_path=team -cstatement_timeout=5s"));
        assert_eq!(config.get_application_name(), Some("ours"));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
        assert_eq!((options.verify, config.get_ssl_mode()), (Verify::Host, SslMode::Require));
        assert_eq!(options.answer_timeout, Duration::from_secs(7));
    }

    #[test]
    fn timeouts_are_read_as_postgresql_writes_them() {
        let milliseconds = |value: &str| duration(value).map(|time| time.as_millis());
        let read =
            ["0", "250", "250ms", "5s", "2min", "1h", "1d", "soon", "5y", "99999999999999999d"].map(milliseconds);
        let day = 86_400_000;
        let expected =
            [None, Some(250), Some(250), Some(5000), Some(120_000), Some(3_600_000), Some(day), None, None, None];
        assert_eq!(read, expected);
    }

    #[test]
    fn the_environment_stands_in_for_what_the_url_does_not_say() {
        let env = [("PGPASSWORD", "secret"), ("PGUSER", "other"), ("PGSSLMODE", "require"), ("PGPORT", "7777")];
        let options = parse("postgresql://feast@db/registry", &env).expect("options");
        assert_eq!(options.config.get_user(), Some("feast"));
        assert_eq!(options.config.get_password(), Some(&b"secret"[..]));
        assert_eq!(options.config.get_ports(), [7777]);
        assert_eq!(options.config.get_ssl_mode(), SslMode::Require);
        assert_eq!(options.answer_timeout, ANSWER_TIMEOUT);
    }

    #[test]
    fn a_socket_is_a_host_with_a_slash() {
        let options = parse("postgresql://feast@/registry?host=/var/run/postgresql", &[]).expect("options");
        let hosts = options.config.get_hosts();
        assert!(
            matches!(hosts, [tokio_postgres::config::Host::Unix(path)] if path.ends_with("postgresql")),
            "{hosts:?}"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(problem("postgresql://db/x?sslmod=require").contains("no option `sslmod`; there are host, port"));
        assert!(!problem("postgresql://db/x?pasword=geheim").contains("geheim"));
        assert!(problem("postgresql://db/x?sslmode=on").contains("`sslmode` must be one of disable"));
        assert!(problem("postgresql://db/x?connect_timeout=soon").contains("`connect_timeout` must be a whole number"));
        assert!(problem("postgresql://db/x?sslcert=me.pem").contains("go together"));
        assert!(parse("postgresql://db/x", &[]).expect_err("nobody").to_string().contains("names no user"));
        assert!(!problem("postgresql://me:hunter2@db/x?sslmode=on").contains("hunter2"));
    }
}
