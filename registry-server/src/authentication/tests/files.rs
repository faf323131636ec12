//! Tokens of a file.

use std::fs;

use super::*;

fn write(path: &Path, entries: &[TokenEntry]) {
    fs::write(path, serde_saphyr::to_string(&entries.to_vec()).expect("YAML")).expect("written");
}

#[tokio::test]
async fn a_token_of_the_file_is_taken_as_long_as_it_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.yaml");
    let (token, other) = (new_token().expect("a token"), new_token().expect("a token"));
    assert!(token != other && token.starts_with(TOKEN_PREFIX) && token.len() == 47, "{token}");
    let mut entry = TokenEntry::new("deploy", &token);
    (entry.roles, entry.groups) = (vec!["writer".to_owned()], vec!["ci".to_owned()]);
    write(&path, &[entry.clone()]);
    let authentication = Authentication::builder().tokens(&path).expect("a file").build();
    let identify = async |headers: HeaderMap| authentication.identify(&headers).await;
    let known = identify(bearer(&token)).await.expect("it is in the file");
    assert_eq!(*known.identity, Identity::new("deploy").with_roles(["writer"]).with_groups(["ci"]));
    assert_eq!((known.is_internal, known.until), (false, None));
    refused(identify(bearer(&other)).await);
    refused(identify(bearer(&format!("{token}x"))).await);
    refused(identify(bearer(&entry.sha256)).await);
    refused(identify(bearer(&format!("frt_{}", entry.sha256))).await);

    // The same entry has the same identity, also after the file has changed.
    write(&path, &[entry.clone(), TokenEntry::new("other", &other)]);
    authentication.reload().expect("it is understood");
    let again = identify(bearer(&token)).await.expect("it is in the file");
    assert!(Arc::ptr_eq(&known.identity, &again.identity));
    identify(bearer(&other)).await.expect("it is in the file");
    // A file that cannot be understood changes nothing.
    fs::write(&path, "- name: x\n  sha256: 7\n  rolls: [a]\n").expect("written");
    let error = authentication.reload().expect_err("it cannot be understood");
    assert!(error.to_string().contains("tokens.yaml") && error.to_string().contains("rolls"), "{error}");
    identify(bearer(&token)).await.expect("what was read before is taken");
    // Nor is it shown what stands there: it may be a token.
    for content in [
        format!("- {{name: a, token: {token}}}\n"),
        format!("- name: a\n  sha256: {token}\n"),
        format!("- name: a\n  sha256: [{token}]\n"),
        format!("- {token}\n"),
        format!("{token}: 1\n"),
        format!("- {{name: a, sha256: {token}, {token}: 1}}\n"),
        format!("- {{name: a, sha256: \"{token}\n"),
    ] {
        fs::write(&path, &content).expect("written");
        let error = authentication.reload().expect_err("it cannot be understood").to_string();
        assert!(!error.contains(&token) && error.contains("tokens.yaml") && !error.contains('\n'), "{error}");
    }
    write(&path, &[TokenEntry::new("other", &other)]);
    authentication.reload().expect("it is understood");
    refused(identify(bearer(&token)).await);
    fs::remove_file(&path).expect("removed");
    authentication.reload().expect_err("it is gone");
    identify(bearer(&other)).await.expect("what was read before is taken");
}

/// A pipe has its reader wait for whoever writes it, which stopped the whole server.
#[cfg(unix)]
#[test]
fn a_pipe_is_no_file_of_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.yaml");
    write(&path, &[TokenEntry::new("ann", &new_token().expect("a token"))]);
    let authentication = Authentication::builder().tokens(&path).expect("a file").build();
    fs::remove_file(&path).expect("removed");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
    let error = authentication.reload().expect_err("it is none").to_string();
    assert!(error.contains("no regular file"), "{error}");
    assert!(Authentication::builder().tokens(&path).is_err());
}

#[tokio::test]
async fn a_token_expires() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.yaml");
    let token = new_token().expect("a token");
    let mut entry = TokenEntry::new("deploy", &token);
    entry.expires = Some("2020-01-01T00:00:00Z".to_owned());
    write(&path, &[entry.clone()]);
    let authentication = Authentication::builder().tokens(&path).expect("a file").build();
    assert!(refused(authentication.identify(&bearer(&token)).await).contains("expired"));
    entry.expires = Some("2120-01-01T00:00:00Z".to_owned());
    write(&path, &[entry]);
    authentication.reload().expect("it is understood");
    assert!(authentication.identify(&bearer(&token)).await.expect("it is good").until.is_some());
}

#[test]
fn a_file_that_is_wrong_is_told_of_when_the_server_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.yaml");
    let digest = "0".repeat(64);
    for (text, why) in [
        ("- {name: x, sha256: 12}", "64 hexadecimal"),
        ("- {name: ' ', sha256: '0'}", "no `name`"),
        (&format!("- {{name: x, sha256: '{digest}', expires: soon}}"), "no moment"),
        (&format!("- {{name: x, sha256: '{digest}'}}\n- {{name: y, sha256: '{digest}'}}"), "twice"),
        ("name: x", "cannot be understood"),
        ("- {sha256: '0'}", "cannot be understood"),
    ] {
        fs::write(&path, text).expect("written");
        let error = Authentication::builder().tokens(&path).expect_err("it is wrong").to_string();
        assert!(error.contains(why) && error.contains("tokens.yaml"), "{text}: {error}");
    }
    Authentication::builder().tokens(&folder.path().join("none")).expect_err("there is none");
}

#[tokio::test]
async fn the_header_is_one_bearer_token_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.yaml");
    let token = new_token().expect("a token");
    write(&path, &[TokenEntry::new("deploy", &token)]);
    let authentication = Authentication::builder().tokens(&path).expect("a file").build();
    let identify = async |values: &[&str]| authentication.identify(&headers(values)).await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        identify(&[&format!("{scheme} {token}")]).await.expect("it is a bearer token");
    }
    assert_eq!(identify(&[]).await.expect_err("there is none"), Unauthenticated::Missing);
    let good = format!("Bearer {token}");
    for values in [
        &[token.as_str()][..],
        &[&format!("Basic {token}")],
        &[&format!("Bearer  {token}")],
        &[&format!("Bearer {token} ")],
        &[&format!(" Bearer {token}")],
        &[&format!("Bearer\t{token}")],
        &[&format!("Bearer {token},Bearer {token}")],
        &["Bearer"],
        &["Bearer "],
        &[""],
        &[&good, &good],
        &[&format!("Bearer {}", "x".repeat(20_000))],
    ] {
        let why = refused(identify(values).await);
        assert!(!why.contains(&token), "{why}");
    }
    let mut odd = HeaderMap::new();
    odd.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff\xfe").expect("a value"));
    refused(authentication.identify(&odd).await);
}
