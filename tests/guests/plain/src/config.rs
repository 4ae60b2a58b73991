//! The guest's configuration. What the keys mean is written in `lib.rs`.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) request: Changes,
    pub(crate) response: Changes,
    pub(crate) request_trailers: Changes,
    pub(crate) response_trailers: Changes,
    pub(crate) request_body: Option<BodyEdit>,
    pub(crate) response_body: Option<BodyEdit>,
    pub(crate) call: Option<Call>,
    pub(crate) reply: Option<Reply>,
    pub(crate) tick_ms: u64,
    pub(crate) count: Option<String>,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) log: Option<String>,
    pub(crate) order: Option<String>,
    pub(crate) refuse: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Changes {
    pub(crate) remove: Vec<String>,
    pub(crate) set: BTreeMap<String, String>,
    pub(crate) add: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BodyEdit {
    Replace(String),
    Append(String),
    Prepend(String),
    Uppercase(bool),
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
    Call,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    pub(crate) at: Phase,
    pub(crate) cluster: String,
    pub(crate) path: String,
    pub(crate) timeout_ms: Option<u64>,
    #[serde(default)]
    pub(crate) then: Then,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Then {
    #[default]
    Resume,
    Reply,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reply {
    pub(crate) at: Phase,
    pub(crate) status: u32,
    #[serde(default)]
    pub(crate) body: String,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
}
