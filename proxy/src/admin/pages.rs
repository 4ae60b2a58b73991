//! What each path answers.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, ORIGIN};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::state::{Readiness, State};
use super::{certificates, clusters, filters};
use crate::reload::ReloadStatus;
use crate::telemetry::registry;
use crate::telemetry::timestamp::rfc3339;

/// The pages, as `/` lists them.
const INDEX: &str = "\
/ready        200 when traffic may be sent here, else 503
/metrics      metrics in the Prometheus text format
/config       the running configuration, its version and when it was loaded
/clusters     every cluster with its endpoints, and which of them are left out
/certificates every certificate in use, and until when it is good
/filters      every filter with its module, and how much it runs
/reload       GET: the last reload; POST: reload now
/upgrade      POST: have a new process take over, and drain
";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Answers one request. The body of a request is of no interest to any page.
pub(super) async fn answer(request: &Parts, state: &State) -> Response<String> {
    let reading = request.method == Method::GET || request.method == Method::HEAD;
    match request.uri.path() {
        "/reload" if request.method == Method::POST => reload(request, state).await,
        "/reload" if !reading => not_allowed("GET, HEAD, POST"),
        "/upgrade" if request.method == Method::POST => upgrade(request, state).await,
        "/upgrade" => not_allowed("POST"),
        "/" | "/ready" | "/metrics" | "/config" | "/clusters" | "/certificates" | "/filters" if !reading => {
            not_allowed("GET, HEAD")
        }
        "/" => text(StatusCode::OK, INDEX),
        "/ready" => ready(state),
        "/metrics" => page(StatusCode::OK, registry::CONTENT_TYPE, state.registry().render()),
        "/config" => configuration(state),
        "/clusters" => json_page(StatusCode::OK, &clusters::page(state)),
        "/certificates" => json_page(StatusCode::OK, &certificates::page(state)),
        "/filters" => json_page(StatusCode::OK, &filters::page(state)),
        "/reload" => match state.reload() {
            Some(reload) => json_page(StatusCode::OK, &describe(&reload.status())),
            None => starting(),
        },
        _ => text(StatusCode::NOT_FOUND, format!("no such page; there are:\n{INDEX}")),
    }
}

fn ready(state: &State) -> Response<String> {
    match state.readiness() {
        Readiness::Ready if state.is_overloaded() => text(StatusCode::SERVICE_UNAVAILABLE, "overloaded\n"),
        Readiness::Ready => text(StatusCode::OK, "ready\n"),
        Readiness::Starting => starting(),
        Readiness::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

fn starting() -> Response<String> {
    text(StatusCode::SERVICE_UNAVAILABLE, "starting\n")
}

fn configuration(state: &State) -> Response<String> {
    let Some(snapshot) = state.snapshot() else { return starting() };
    let summary = json!({
        "version": snapshot.version,
        "loaded": rfc3339(snapshot.loaded),
        "file": snapshot.file.to_string_lossy(),
        "configuration": snapshot.configuration,
    });
    json_page(StatusCode::OK, &summary)
}

async fn reload(request: &Parts, state: &State) -> Response<String> {
    if request.headers.contains_key(ORIGIN) {
        return from_a_browser();
    }
    let Some(reload) = state.reload() else { return starting() };
    match reload.reload().await {
        Some(status) if status.error.is_none() => json_page(StatusCode::OK, &describe(&status)),
        Some(status) => json_page(StatusCode::UNPROCESSABLE_ENTITY, &describe(&status)),
        None => {
            text(StatusCode::SERVICE_UNAVAILABLE, "too many reloads are waiting, or the process is ending\n")
        }
    }
}

/// Only browsers send an origin with a POST: a page that somebody on this machine is looking at must not command the proxy.
fn from_a_browser() -> Response<String> {
    text(StatusCode::FORBIDDEN, "not from a browser\n")
}

async fn upgrade(request: &Parts, state: &State) -> Response<String> {
    if request.headers.contains_key(ORIGIN) {
        return from_a_browser();
    }
    match state.upgrade().await {
        Some(Ok(pid)) => json_page(StatusCode::OK, &json!({"result": "ok", "pid": pid})),
        Some(Err(reason)) => {
            json_page(StatusCode::UNPROCESSABLE_ENTITY, &json!({"result": "failed", "errors": reason}))
        }
        None => text(StatusCode::SERVICE_UNAVAILABLE, "not now: the process starts, ends, or is at it\n"),
    }
}

fn describe(status: &ReloadStatus) -> Value {
    json!({
        "result": if status.error.is_none() { "ok" } else { "failed" },
        "time": rfc3339(status.at),
        "version": status.version,
        "errors": status.error,
        "attempts": status.attempts,
    })
}

fn not_allowed(allow: &'static str) -> Response<String> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("allowed here: {allow}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<String> {
    page(status, TEXT, body.into())
}

fn json_page(status: StatusCode, body: &Value) -> Response<String> {
    page(status, JSON, format!("{body:#}\n"))
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
