//! The form of a file of cases: what a filter is given, and what is expected of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// A file of cases.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The filter's configuration, for cases without one of their own. Default: none.
    #[serde(default)]
    pub(super) config: Value,
    /// The cases. Each has a Meshgate of its own, so that none sees what another left.
    #[schemars(length(min = 1))]
    pub(super) cases: Vec<Case>,
}

/// One case: an exchange, or several after each other.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// What it shows.
    pub(super) name: String,
    /// The filter's configuration.
    #[serde(default)]
    pub(super) config: Option<Value>,
    /// What the client asks. Default: GET /.
    #[serde(default)]
    pub(super) request: Request,
    /// What the upstream, where the request goes in the end, answers. Default: 200, with nothing in it.
    #[serde(default)]
    pub(super) upstream: Answer,
    /// What other clusters answer, by name: those that the filter calls, or sends requests to.
    #[serde(default)]
    pub(super) clusters: BTreeMap<String, Answer>,
    /// What should come of it.
    pub(super) expect: Expected,
    /// Exchanges after the first, in the same Meshgate.
    #[serde(default)]
    pub(super) then: Vec<Step>,
}

/// A further exchange.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// What the client asks. Default: GET /.
    #[serde(default)]
    pub(super) request: Request,
    /// What the upstream answers. Default: 200, with nothing in it.
    #[serde(default)]
    pub(super) upstream: Answer,
    /// What other clusters answer, by name. They are those of the case.
    #[serde(default)]
    pub(super) clusters: BTreeMap<String, Answer>,
    /// What should come of it.
    pub(super) expect: Expected,
}

/// A request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Request {
    /// Default: GET.
    pub(super) method: String,
    /// The path, with its query. Default: /.
    pub(super) path: String,
    /// Fields. The authority is `host`; default: `filter.test`.
    pub(super) headers: BTreeMap<String, Several>,
    /// The body. Default: none.
    pub(super) body: String,
}

impl Default for Request {
    fn default() -> Self {
        Self { method: "GET".to_owned(), path: "/".to_owned(), headers: BTreeMap::new(), body: String::new() }
    }
}

/// What a server answers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Answer {
    /// Default: 200.
    #[schemars(range(min = 200, max = 599))]
    pub(super) status: u16,
    /// Fields.
    pub(super) headers: BTreeMap<String, Several>,
    /// The body. Default: empty.
    pub(super) body: String,
    /// How long it takes to answer, such as 50ms. Default: nothing.
    #[schemars(with = "String", extend("format" = "duration"))]
    pub(super) delay: Option<String>,
    /// It closes the connection instead of answering.
    pub(super) fails: bool,
}

impl Default for Answer {
    fn default() -> Self {
        Self { status: 200, headers: BTreeMap::new(), body: String::new(), delay: None, fails: false }
    }
}

/// A field's value, or several for the same field.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Several {
    /// One.
    One(String),
    /// Each in a line of its own.
    Many(Vec<String>),
}

impl Several {
    pub(super) fn values(&self) -> &[String] {
        match self {
            Several::One(value) => std::slice::from_ref(value),
            Several::Many(values) => values,
        }
    }
}

/// What should come of an exchange. What is not said is not looked at.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Expected {
    /// The configuration is refused, and the message contains this. Then nothing else can be expected.
    #[schemars(with = "String")]
    pub(super) refused: Option<String>,
    /// What the client gets.
    #[schemars(with = "ExpectedResponse")]
    pub(super) response: Option<ExpectedResponse>,
    /// What the upstream gets.
    #[schemars(with = "Calls")]
    pub(super) upstream: Option<Calls>,
    /// What other clusters get, by name.
    pub(super) clusters: BTreeMap<String, Calls>,
    /// What stands in the log: for each of these, a line contains it.
    pub(super) log: Vec<String>,
}

/// What a client should get.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExpectedResponse {
    /// The status.
    #[schemars(with = "u16", range(min = 100, max = 599))]
    pub(super) status: Option<u16>,
    /// Fields; null: it must not be there.
    pub(super) headers: BTreeMap<String, Option<Several>>,
    /// The whole body.
    #[schemars(with = "String")]
    pub(super) body: Option<String>,
    /// A part of the body.
    #[schemars(with = "String")]
    pub(super) body_contains: Option<String>,
}

/// What a server should get: `none`, one request, or several in their order.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Calls {
    /// None at all.
    None(Nothing),
    /// One.
    One(ExpectedRequest),
    /// So many, in this order.
    Several(Vec<ExpectedRequest>),
}

impl Calls {
    pub(super) fn requests(&self) -> &[ExpectedRequest] {
        match self {
            Calls::None(Nothing::None) => &[],
            Calls::One(request) => std::slice::from_ref(request),
            Calls::Several(requests) => requests,
        }
    }
}

/// No request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Nothing {
    /// None.
    None,
}

/// What a request should be like.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExpectedRequest {
    /// The method.
    #[schemars(with = "String")]
    pub(super) method: Option<String>,
    /// The path, with its query.
    #[schemars(with = "String")]
    pub(super) path: Option<String>,
    /// Fields, the authority as `host`; null: it must not be there.
    pub(super) headers: BTreeMap<String, Option<Several>>,
    /// The whole body.
    #[schemars(with = "String")]
    pub(super) body: Option<String>,
    /// A part of the body.
    #[schemars(with = "String")]
    pub(super) body_contains: Option<String>,
}
