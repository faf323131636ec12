//! Tokens that are taken, and all that is tried with others.

mod files;
#[cfg(feature = "oidc")]
mod kubernetes;
#[cfg(feature = "oidc")]
mod provider;

use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::{AUTHORIZATION, HeaderValue};

use super::*;

/// The headers of a call with these authorization headers.
fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

fn bearer(token: &str) -> HeaderMap {
    headers(&[&format!("Bearer {token}")])
}

fn refused(result: Result<Authenticated, Unauthenticated>) -> String {
    match result {
        Err(why @ (Unauthenticated::Malformed | Unauthenticated::Refused(_))) => why.to_string(),
        other => panic!("{other:?}"),
    }
}
