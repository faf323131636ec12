//! What the URL of a registry says about the connection: the parameters that SQLAlchemy hands to PyMySQL, and MySQL's own
//! `ssl_mode`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use feast_registry_core::config::RegistryUrl;
use feast_registry_core::{Error, Result};
use mysql_async::{ClientIdentity, Opts, OptsBuilder, SslOpts};

/// How long connecting may take, unless `connect_timeout` says otherwise: as with PyMySQL.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call of the registry waits for the server, unless `read_timeout` says otherwise.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a server is called whose name is not to be checked. mysql_async 0.37 lets such a name pass only if the error holds
/// this word, as that of older versions of rustls did; the error still holds the name that was asked for.
const ANY_NAME: &str = "NotValidForName.invalid";

/// The options that are understood.
const OPTIONS: [&str; 14] = [
    "charset",
    "unix_socket",
    "connect_timeout",
    "read_timeout",
    "write_timeout",
    "ssl_mode",
    "ssl_ca",
    "ssl_cert",
    "ssl_key",
    "ssl_disabled",
    "ssl_verify_cert",
    "ssl_verify_identity",
    "ssl_check_hostname",
    "local_infile",
];

/// How much of TLS is asked for, each including what is before it: MySQL's `ssl_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tls {
    /// None.
    Disabled,
    /// If the server has it.
    Preferred,
    /// Encryption, whoever the server is.
    Required,
    /// And its certificate is signed by someone trusted.
    VerifyIssuer,
    /// And is of the host that was asked for.
    VerifyHost,
}

/// How to connect.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// With TLS, if any is asked for.
    pub(crate) opts: Opts,
    /// To use if the server has no TLS, where that may be.
    pub(crate) without_tls: Option<Opts>,
    /// The files that must be there to connect with TLS, each with the option that names it.
    pub(crate) files: Vec<(&'static str, PathBuf)>,
    pub(crate) tls: Tls,
    pub(crate) connect_timeout: Duration,
    /// How long to wait for an answer.
    pub(crate) answer_timeout: Duration,
}

impl Options {
    /// Reads them from a URL.
    pub(crate) fn new(url: &RegistryUrl) -> Result<Self> {
        let wrong = |problem: fmt::Arguments<'_>| Error::config(format!("the registry's URL `{url}`: {problem}"));
        url.refuse_options_but(&OPTIONS)?;
        let option = |name: &str| url.query().iter().rev().find(|(of, _)| of == name).map(|(_, value)| value.as_str());
        let seconds = |name: &str| -> Result<Option<Duration>> {
            let parse = |value: &str| match value.parse::<f64>() {
                Ok(seconds) if seconds > 0.0 && seconds <= 31_536_000.0 => Ok(Duration::from_secs_f64(seconds)),
                _ => Err(wrong(format_args!("`{name}` must be a number of seconds above 0, and is `{value}`"))),
            };
            option(name).map(parse).transpose()
        };
        let flag = |name: &str| -> Result<Option<bool>> {
            let parse = |value: &str| match value.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                _ => Err(wrong(format_args!("`{name}` must be `true` or `false`, and is `{value}`"))),
            };
            option(name).map(parse).transpose()
        };

        // Names may hold any character, and this is what holds them all; it is also what sessions are told.
        if let Some(charset) = option("charset").filter(|charset| !charset.eq_ignore_ascii_case("utf8mb4")) {
            return Err(wrong(format_args!(
                "`charset` is `{charset}`, and this registry speaks utf8mb4 alone: leave it out, or write \
                 `charset=utf8mb4`"
            )));
        }
        let Some(database) = url.database() else {
            return Err(wrong(format_args!(
                "it names no database; that comes after the host, as in `mysql://host/feast`"
            )));
        };
        let socket = option("unix_socket");
        let builder = OptsBuilder::default()
            .ip_or_hostname(url.host().unwrap_or("localhost"))
            .tcp_port(url.port().unwrap_or(3306))
            .user(url.username())
            .pass(url.password())
            .db_name(Some(database))
            .socket(socket)
            // Only where the URL says so: from within a container, the server's own path is another file.
            .prefer_socket(false)
            .tcp_keepalive(Some(Duration::from_secs(60)))
            // A row of the journal has what was stored before and after. What the server takes is another matter, and asked.
            .max_allowed_packet(Some(1 << 30))
            // Only the driver's own pool would use it.
            .wait_timeout(Some(120))
            // So that an UPDATE counts the rows that it found, as with SQLAlchemy.
            .client_found_rows(true);

        let tls = tls(&option, &flag, &wrong)?;
        let mut files = Vec::new();
        let mut file = |name: &'static str| {
            option(name).map(|value| {
                files.push((name, PathBuf::from(value)));
                PathBuf::from(value)
            })
        };
        let (ca, certificate, key) = (file("ssl_ca"), file("ssl_cert"), file("ssl_key"));
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(ClientIdentity::new(certificate.into(), key.into())),
            (None, None) => None,
            _ => return Err(wrong(format_args!("`ssl_cert` and `ssl_key` go together"))),
        };
        let ssl = SslOpts::default()
            .with_client_identity(identity)
            .with_disable_built_in_roots(ca.is_some())
            .with_root_certs(ca.into_iter().map(Into::into).collect())
            .with_danger_accept_invalid_certs(tls < Tls::VerifyIssuer)
            .with_danger_skip_domain_validation(tls < Tls::VerifyHost)
            .with_danger_tls_hostname_override((tls == Tls::VerifyIssuer).then_some(ANY_NAME));
        let plain = Opts::from(builder.clone());
        // A socket is not encrypted, by the server either.
        let is_encrypted = tls > Tls::Disabled && socket.is_none();
        let connect_timeout = seconds("connect_timeout")?.unwrap_or(CONNECT_TIMEOUT);
        // PyMySQL bounds the parts of a call, this the whole.
        let answer_timeout = seconds("read_timeout")?.max(seconds("write_timeout")?).unwrap_or(ANSWER_TIMEOUT);
        flag("local_infile")?;
        Ok(Self {
            opts: if is_encrypted { Opts::from(builder.ssl_opts(ssl)) } else { plain.clone() },
            without_tls: (is_encrypted && tls == Tls::Preferred).then_some(plain),
            files: if is_encrypted { files } else { Vec::new() },
            tls: if is_encrypted { tls } else { Tls::Disabled },
            connect_timeout,
            answer_timeout,
        })
    }
}

/// What `ssl_mode` says, or what PyMySQL makes of its own options: whoever names an issuer wants it checked.
fn tls<'a>(
    option: &impl Fn(&str) -> Option<&'a str>,
    flag: &impl Fn(&str) -> Result<Option<bool>>,
    wrong: &impl Fn(fmt::Arguments<'_>) -> Error,
) -> Result<Tls> {
    let asked = match option("ssl_mode") {
        None => None,
        Some(mode) => Some(match mode.to_ascii_uppercase().as_str() {
            "DISABLED" => Tls::Disabled,
            "PREFERRED" => Tls::Preferred,
            "REQUIRED" => Tls::Required,
            "VERIFY_CA" => Tls::VerifyIssuer,
            "VERIFY_IDENTITY" => Tls::VerifyHost,
            _ => {
                let modes = "DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY";
                return Err(wrong(format_args!("`ssl_mode` must be one of {modes}, and is `{mode}`")));
            }
        }),
    };
    let has_issuer = option("ssl_ca").is_some();
    let verify = flag("ssl_verify_cert")?;
    let verify_host = flag("ssl_verify_identity")?.or(flag("ssl_check_hostname")?);
    let is_disabled = flag("ssl_disabled")?.unwrap_or(false) || asked == Some(Tls::Disabled);
    let wants_tls = has_issuer || option("ssl_cert").is_some() || verify == Some(true) || verify_host == Some(true);
    if is_disabled {
        if asked.is_some_and(|mode| mode > Tls::Preferred) || verify == Some(true) || verify_host == Some(true) {
            return Err(wrong(format_args!("TLS is disabled and asked for at once")));
        }
        return Ok(Tls::Disabled);
    }
    let of_files = match () {
        () if verify_host == Some(true) => Tls::VerifyHost,
        () if has_issuer && verify != Some(false) && verify_host.is_none() => Tls::VerifyHost,
        () if has_issuer && verify != Some(false) || verify == Some(true) => Tls::VerifyIssuer,
        () if wants_tls => Tls::Required,
        () => Tls::Preferred,
    };
    Ok(match asked {
        // MySQL's own option says how much is checked, so the issuer's name does not.
        Some(mode) if verify.is_none() && verify_host.is_none() => mode,
        Some(mode) => mode.max(of_files),
        None => of_files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Options> {
        Options::new(&url.parse().expect("a URL"))
    }

    fn problem(url: &str) -> String {
        parse(url).expect_err(url).to_string()
    }

    #[test]
    fn a_url_says_how_to_connect() {
        let url = "mysql+pymysql://feast:s%20cret@db:3307/registry?charset=utf8mb4&connect_timeout=3&read_timeout=2.5";
        let options = parse(url).expect("options");
        assert_eq!((options.opts.ip_or_hostname(), options.opts.tcp_port()), ("db", 3307));
        assert_eq!((options.opts.user(), options.opts.pass()), (Some("feast"), Some("s cret")));
        assert_eq!(options.opts.db_name(), Some("registry"));
        assert!(!options.opts.prefer_socket());
        assert_eq!(options.connect_timeout, Duration::from_secs(3));
        assert_eq!(options.answer_timeout, Duration::from_millis(2500));
        let options = parse("mariadb://db/registry").expect("options");
        assert_eq!((options.opts.tcp_port(), options.answer_timeout), (3306, ANSWER_TIMEOUT));
        assert_eq!(options.connect_timeout, CONNECT_TIMEOUT);
    }

    #[test]
    fn tls_is_what_mysql_and_pymysql_make_of_it() {
        let tls = |query: &str| parse(&format!("mysql://db/registry{query}")).expect(query).tls;
        for (query, expected) in [
            ("", Tls::Preferred),
            ("?ssl_disabled=true", Tls::Disabled),
            ("?ssl_mode=disabled", Tls::Disabled),
            ("?ssl_mode=PREFERRED", Tls::Preferred),
            ("?ssl_mode=REQUIRED", Tls::Required),
            ("?ssl_mode=REQUIRED&ssl_ca=ca.pem", Tls::Required),
            ("?ssl_mode=VERIFY_CA&ssl_ca=ca.pem", Tls::VerifyIssuer),
            ("?ssl_mode=VERIFY_IDENTITY", Tls::VerifyHost),
            ("?ssl_ca=ca.pem", Tls::VerifyHost),
            ("?ssl_ca=ca.pem&ssl_check_hostname=false", Tls::VerifyIssuer),
            ("?ssl_ca=ca.pem&ssl_verify_cert=false", Tls::Required),
            ("?ssl_verify_cert=true", Tls::VerifyIssuer),
            ("?ssl_verify_identity=true", Tls::VerifyHost),
            ("?ssl_cert=me.pem&ssl_key=me.key", Tls::Required),
            ("?unix_socket=/run/mysqld/mysqld.sock", Tls::Disabled),
        ] {
            assert_eq!(tls(query), expected, "{query}");
        }
        let options = parse("mysql://db/registry?ssl_ca=ca.pem").expect("options");
        let ssl = options.opts.ssl_opts().expect("TLS");
        assert!(!ssl.accept_invalid_certs() && !ssl.skip_domain_validation() && ssl.disable_built_in_roots());
        assert!(options.without_tls.is_none());
        assert!(parse("mysql://db/registry").expect("options").without_tls.is_some());
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(
            problem("mysql://db/x?sslmode=require").contains("no option `sslmode`; there are charset, unix_socket")
        );
        assert!(!problem("mysql://db/x?pasword=geheim").contains("geheim"));
        assert!(problem("mysql://db/x?ssl_mode=on").contains("`ssl_mode` must be one of DISABLED"));
        assert!(problem("mysql://db/x?read_timeout=0").contains("`read_timeout` must be a number of seconds"));
        assert!(problem("mysql://db/x?ssl_cert=me.pem").contains("go together"));
        assert!(problem("mysql://db/x?charset=latin1").contains("utf8mb4 alone"));
        assert!(problem("mysql://db/x?ssl_disabled=true&ssl_mode=REQUIRED").contains("at once"));
        assert!(problem("mysql://db/x?ssl_verify_cert=maybe").contains("`true` or `false`"));
        assert!(problem("mysql://db").contains("names no database"));
        assert!(!problem("mysql://me:hunter2@db/x?ssl_mode=on").contains("hunter2"));
    }
}
