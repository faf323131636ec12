use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

fn url(text: &str) -> RegistryUrl {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    let error = text.parse::<RegistryUrl>().expect_err(text);
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    error.to_string()
}

/// User name, password, host, port, database.
type Taken<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>, Option<u16>, Option<&'a str>);

fn parts(url: &RegistryUrl) -> Taken<'_> {
    (url.username(), url.password(), url.host(), url.port(), url.database())
}

#[test]
fn sqlite_is_a_path_after_three_slashes() {
    for (text, database) in [
        ("sqlite://", None),
        ("sqlite:///", None),
        ("sqlite:///:memory:", Some(":memory:")),
        ("sqlite:///rel.db", Some("rel.db")),
        ("sqlite:////abs.db", Some("/abs.db")),
        ("sqlite:///a%20b%2Fc.db", Some("a b/c.db")),
        ("sqlite:///data/a:b@c#d.db", Some("data/a:b@c#d.db")),
        ("sqlite:///C:\\feast\\registry.db", Some("C:\\feast\\registry.db")),
        ("sqlite+pysqlite:///rel.db", Some("rel.db")),
    ] {
        let url = url(text);
        assert_eq!(url.scheme(), "sqlite", "{text}");
        assert_eq!(parts(&url), (None, None, None, None, database), "{text}");
    }
    assert_eq!(url("sqlite+pysqlite:///rel.db").driver(), Some("pysqlite"));
    for text in ["sqlite://rel.db", "sqlite://host/rel.db", "sqlite://user@/rel.db", "sqlite://:1/rel.db"] {
        assert!(error(text).contains("`sqlite:///registry.db`"), "{text}: {}", error(text));
    }
}

#[test]
fn databases_on_a_server() {
    let url_ = url("postgresql+psycopg2://feast:secret@db.example.com:5433/features?sslmode=require");
    assert_eq!((url_.scheme(), url_.driver()), ("postgresql", Some("psycopg2")));
    assert_eq!(parts(&url_), (Some("feast"), Some("secret"), Some("db.example.com"), Some(5433), Some("features")));
    assert_eq!(url_.query(), [("sslmode".to_owned(), "require".to_owned())]);

    for (text, expected) in [
        ("postgresql://h", (None, None, Some("h"), None, None)),
        ("postgresql://h/", (None, None, Some("h"), None, None)),
        ("postgresql:///d", (None, None, None, None, Some("d"))),
        ("postgresql://u@h:1/d", (Some("u"), None, Some("h"), Some(1), Some("d"))),
        ("postgresql://u:@h:65535/d", (Some("u"), None, Some("h"), Some(65535), Some("d"))),
        ("postgresql://:p@h/d", (None, Some("p"), Some("h"), None, Some("d"))),
        ("postgresql://u:p@/d", (Some("u"), Some("p"), None, None, Some("d"))),
        ("postgresql://[::1]:5432/d", (None, None, Some("::1"), Some(5432), Some("d"))),
        ("postgresql://u:p@[fe80::1%25eth0]/d", (Some("u"), Some("p"), Some("fe80::1%25eth0"), None, Some("d"))),
        ("postgresql://h/a/b#c", (None, None, Some("h"), None, Some("a/b#c"))),
        ("mysql+pymysql://u:p@h/d", (Some("u"), Some("p"), Some("h"), None, Some("d"))),
        ("mysql://u:p@h/d", (Some("u"), Some("p"), Some("h"), None, Some("d"))),
        ("mariadb+pymysql://u:p@h/d", (Some("u"), Some("p"), Some("h"), None, Some("d"))),
    ] {
        assert_eq!(parts(&url(text)), expected, "{text}");
    }
    assert_eq!(url("PostgreSQL+Psycopg://h/d").scheme(), "postgresql");
}

#[test]
fn user_names_passwords_and_databases_are_percent_decoded() {
    let url_ = url("mysql://us%40er:p%2F%3a%zz%4@h/d%20b%C3%A9+");
    assert_eq!(parts(&url_), (Some("us@er"), Some("p/:%zz%4"), Some("h"), None, Some("d bé+")));
    assert!(error("mysql://u:p%E9@h/d").contains("UTF-8"));
    assert!(error("mysql://h/d%00").contains("%00"));
}

#[test]
fn passwords_need_no_encoding_where_their_end_is_clear() {
    for (text, username, password, host) in [
        ("mysql://u:p@ss@h/d", "u", "p@ss", "h"),
        ("mysql://u:@@@@h:3306/d", "u", "@@@", "h"),
        ("mysql://u:p:w@h/d", "u", "p:w", "h"),
        // As SQLAlchemy: everything up to the first `@`.
        ("mysql://u:p/w?x=1@h/d", "u", "p/w?x=1", "h"),
        ("mysql://u@corp:p@h/d", "u@corp", "p", "h"),
        ("mysql://u:p#w@h/d?a=b%40c", "u", "p#w", "h"),
        ("mysql://h:3306/d?mail=a@b", "h", "3306/d?mail=a", "b"),
    ] {
        let url = url(text);
        assert_eq!(
            (url.username(), url.password(), url.host()),
            (Some(username), Some(password), Some(host)),
            "{text}"
        );
    }
    assert_eq!(parts(&url("mysql://u@corp@h/d")), (Some("u@corp"), None, Some("h"), None, Some("d")));
    // Is the password `p@x/y`? Then `y` would be shown as part of the database.
    assert!(error("mysql://u:p@x/y@h/d").contains("write `%40`"));
    assert!(error("mysql://u:p@x?y=z@h/d").contains("write `%40`"));
    assert_eq!(url("mysql://u:p@h/y%40h").database(), Some("y@h"));
    assert_eq!(url("mysql://u@h/y@h?a=b@c").database(), Some("y@h"));
}

#[test]
fn options_keep_their_order_and_their_repetitions() {
    let url = url("postgresql://h/d?b=2&a=1&b=%263&blank=&none&c=x+y%2Bz;=&=v");
    let options: Vec<_> = url.query().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(options, [("b", "2"), ("a", "1"), ("b", "&3"), ("c", "x y+z;="), ("", "v")]);
    assert_eq!(url.to_string(), "postgresql://h/d?b=2&a=1&b=%263&c=x%20y%2Bz;=&=v");
}

#[test]
fn files_are_paths_or_file_urls() {
    for (text, path) in [
        ("data/registry.db", "data/registry.db"),
        ("/var/registry%20.db?x", "/var/registry%20.db?x"),
        ("./a:b", "./a:b"),
        ("C:\\feast\\registry.db", "C:\\feast\\registry.db"),
        ("C:/feast@home/registry.db", "C:/feast@home/registry.db"),
        ("//srv/a:b@c", "//srv/a:b@c"),
        ("./u:p@h", "./u:p@h"),
        (":memory:", ":memory:"),
        ("file:///var/a%20b.db", "/var/a b.db"),
        ("FILE://localhost/var/registry.db", "/var/registry.db"),
    ] {
        let url = url(text);
        assert_eq!(url.scheme(), "file", "{text}");
        assert_eq!(parts(&url), (None, None, None, None, Some(path)), "{text}");
        assert_eq!(url.to_string(), path);
    }
    assert_eq!(RegistryUrl::from_path("a%20b://c").database(), Some("a%20b://c"));
    assert!(error("file://registry.db").contains("`file:///…`"));
    assert!(error("file://").contains("no path"));
    assert!(error("").contains("empty"));
}

#[test]
fn object_stores_have_a_bucket_and_a_name_that_is_taken_as_it_is() {
    for (text, host, name) in [
        ("s3://bucket/a/registry.db", "bucket", Some("a/registry.db")),
        ("gs://bucket//a%20b@c:d.db", "bucket", Some("a%20b@c:d.db")),
        ("az://container/registry.db", "container", Some("registry.db")),
        ("s3://bucket", "bucket", None),
        ("memory://", "", None),
        ("memory://name", "name", None),
    ] {
        let url = url(text);
        assert_eq!((url.host().unwrap_or_default(), url.database()), (host, name), "{text}");
    }
    let url = url("abfss://container@account.dfs.core.windows.net/registry.db?sig=abc&sp=r");
    assert_eq!((url.username(), url.host()), (Some("container"), Some("account.dfs.core.windows.net")));
    assert_eq!(url.to_string(), "abfss://container@account.dfs.core.windows.net/registry.db?sig=***&sp=r");
    assert!(error("s3://bucket/a#b").contains('#'));
}

#[test]
fn secrets_are_not_shown() {
    for (text, shown) in [
        ("postgresql://u:hunter2@h/d", "postgresql://u:***@h/d"),
        ("postgresql+psycopg://:hunter2@h:1/d", "postgresql+psycopg://:***@h:1/d"),
        ("postgresql://u%3A%40:hunter2@[::1]/a%3F", "postgresql://u%3A%40:***@[::1]/a%3F"),
        (
            "postgresql://h/d?password=hunter2&SSLPassword=hunter2&access_token=hunter2&my-key=hunter2&Secret=hunter2",
            "postgresql://h/d?password=***&SSLPassword=***&access_token=***&my-key=***&Secret=***",
        ),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("sqlite:////a b/é%25%0A.db?mode=ro", "sqlite:////a b/é%25%0A.db?mode=ro"),
        ("s3://key:hunter2@bucket/a", "s3://key:***@bucket/a"),
    ] {
        let url = url(text);
        assert_eq!(url.to_string(), shown);
        assert_eq!(format!("{url:?}"), format!("RegistryUrl({shown})"));
        assert_eq!(format!("{url:#?}"), format!("RegistryUrl({shown})"));
    }
}

#[test]
fn errors_say_what_is_wrong_and_repeat_no_password() {
    for (text, problem) in [
        ("postgresql://u:hunter2", "port"),
        ("postgresql://u:hunter2/d", "port"),
        ("postgresql://u:x@h:hunter2/d", "port"),
        ("postgresql://u:hunter2@h:/d", "port"),
        ("postgresql://u:hunter2@h:0/d", "port"),
        ("postgresql://u:hunter2@h:+1/d", "port"),
        ("postgresql://u:hunter2@h:65536/d", "port"),
        ("postgresql://u:hunter2@::1/d", "port"),
        ("postgresql://u:hunter2@h1:1,h2:2/d", "port"),
        ("postgresql://u:hunter2@[::1/d", "`]`"),
        ("postgresql://u:hunter2@[]/d", "brackets"),
        ("postgresql://u:hunter2@[::1]1/d", "after the `]`"),
        ("postgresql://u:hunter2@a b/d", "space"),
        ("postgresql://u:hunter2%FF@h/d", "UTF-8"),
        ("postgresql://u:x@y/hunter2@h/d", "`%40`"),
        ("postgresql://u:hunter2@h/d\n", "line break"),
        ("postgresql:u:hunter2@h/d", "`://`"),
        ("postgresql:/u:hunter2@h/d", "`://`"),
        ("user:hunter2@h/d", "`://`"),
        ("u:hunter2@h/d", "begins with a scheme and `://`"),
        ("u:hun/ter2@h/d", "`://`"),
        ("//u:hunter2@h/d", "`://`"),
        (":hunter2@h/d", "`://`"),
        ("u:hunter2@h://d", "no scheme"),
        (" postgresql://u:hunter2@h/d", "no scheme"),
        ("://u:hunter2@h/d", "no scheme"),
        ("+psycopg://u:hunter2@h/d", "no scheme"),
        ("postgresql+://u:hunter2@h/d", "`+`"),
        ("postgresql+a+b://u:hunter2@h/d", "`+`"),
        ("sqlite://u:hunter2@h/d", "names a host"),
        ("file://u:hunter2@/d", "names a host"),
    ] {
        let error = error(text);
        assert!(error.contains(problem) && !error.contains("hunter2"), "{text}: {error}");
    }
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

proptest! {
    #[test]
    fn a_percent_encoded_url_reads_back(
        username in ".+", password in ".+", database in "[^\\x00]+", key in "[a-z]{1,4}", value in ".+", port in 1u16..
    ) {
        let text = format!(
            "mysql+x://{}:{}@host:{port}/{}?{key}={}",
            encoded(&username), encoded(&password), encoded(&database), encoded(&value)
        );
        let url = text.parse::<RegistryUrl>().unwrap();
        prop_assert_eq!(
            parts(&url),
            (Some(&*username), Some(&*password), Some("host"), Some(port), Some(&*database))
        );
        prop_assert_eq!(url.query(), [(key, value)]);
    }

    #[test]
    fn a_password_needs_encoding_only_after_an_at(
        before in "[^@%\\x00-\\x1f\\x7f-\\x9f]*", after in "[^/?%\\x00-\\x1f\\x7f-\\x9f]*"
    ) {
        let password = format!("{before}@{after}");
        let url = format!("mysql://user:{password}@host/db").parse::<RegistryUrl>().unwrap();
        prop_assert_eq!(parts(&url), (Some("user"), Some(&*password), Some("host"), None, Some("db")));
    }

    // The password holds what no other part does, so that finding it means that it was shown.
    #[test]
    fn what_is_shown_never_holds_the_password(
        before in "[^~]{0,8}", after in "[^~]{0,8}", scheme in "(mysql|postgresql\\+psycopg|sqlite|s3|file|memory)",
        host in "[a-z]{0,3}", rest in "[/?@:a-z=&]{0,8}", encode in any::<bool>()
    ) {
        let password = format!("{before}~~hunter2~~{after}");
        let text = if encode { encoded(&password) } else { password };
        match format!("{scheme}://user:{text}@{host}{rest}").parse::<RegistryUrl>() {
            Ok(url) => {
                let shown = format!("{url} {url:?} {url:#?}");
                prop_assert!(!shown.contains("hunter2") && !shown.contains(&encoded("hunter2")), "{}", shown);
            }
            Err(error) => {
                let shown = format!("{error} {error:?}");
                prop_assert!(!shown.contains("hunter2") && !shown.contains(&encoded("hunter2")), "{}", shown);
            }
        }
    }

    #[test]
    fn what_is_shown_reads_back_but_for_the_secrets(text in "(mysql|sqlite|s3|memory)://[/?@:a-z=&%0-9+#~é ]{0,24}") {
        if let Ok(url) = text.parse::<RegistryUrl>() {
            let again = url.to_string().parse::<RegistryUrl>();
            prop_assert!(again.is_ok(), "{} {}", text, url);
            prop_assert_eq!(again.unwrap().to_string(), url.to_string());
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in ".*") {
        drop(text.parse::<RegistryUrl>());
    }
}
