//! Services that speak HTTP.

use std::time::Duration;

use meshgate_sdk::{CallResponse, Request};

use crate::Fields;
use crate::config::HttpConfig;
use crate::decision::Decision;

/// Asks the service.
///
/// # Errors
/// Why there is no decision, in words for the log.
pub(crate) async fn ask(
    service: &HttpConfig,
    timeout: Duration,
    fields: &Fields,
    request: &Request,
    body: Vec<u8>,
) -> Result<Decision, String> {
    let (method, authority, target) = (request.method(), request.authority(), request.target());
    let mut call = match &service.path {
        Some(path) => service.cluster.get(path.as_str()),
        None => {
            let prefix = service.path_prefix.as_deref().unwrap_or_default();
            let call = service.cluster.request(method.clone(), format!("{prefix}{}", target.as_str()));
            call.authority(authority.as_str())
        }
    };
    if let Some(authority) = &service.authority {
        call = call.authority(authority.as_str());
    }
    for (name, value) in request.headers().pairs().iter() {
        // The body's length is the call's own, and so is everything that says where it comes from.
        if !is_own(name) && fields.request.contains(name) {
            call = call.header(name, String::from_utf8_lossy(value));
        }
    }
    call = call
        .header("x-forwarded-method", method)
        .header("x-forwarded-proto", request.scheme())
        .header("x-forwarded-host", authority)
        .header("x-forwarded-uri", target.as_str());
    if let Some(from) = request.header("x-forwarded-for") {
        call = call.header("x-forwarded-for", from);
    }
    let answer = call.body(body).timeout(timeout).send().await.map_err(|error| error.to_string())?;
    decision(fields, &answer)
}

/// Fields that a call has of its own.
fn is_own(name: &str) -> bool {
    name.starts_with(':')
        || name.starts_with("x-forwarded-")
        || matches!(
            name,
            "host" | "content-length" | "transfer-encoding" | "connection" | "te" | "upgrade" | "expect"
        )
}

fn decision(fields: &Fields, answer: &CallResponse) -> Result<Decision, String> {
    let given = |names: &crate::config::Names| {
        let given = answer.headers().iter().filter(|(name, _)| !is_own(name) && names.contains(name));
        given.map(|(name, value)| (name.to_owned(), value.to_vec())).collect::<Vec<_>>()
    };
    match answer.status() {
        200..300 => {
            let mut set: Vec<(String, Vec<u8>, bool)> = Vec::new();
            for (name, value) in given(&fields.upstream) {
                let beside = set.iter().any(|(known, ..)| *known == name);
                set.push((name, value, beside));
            }
            Ok(Decision::Allow { set, remove: Vec::new() })
        }
        status @ 300..500 => {
            let (headers, body) = (given(&fields.client), answer.body().to_vec());
            Ok(Decision::Deny { status, headers, body })
        }
        status => Err(format!("the service answered with {status}")),
    }
}
