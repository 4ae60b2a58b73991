//! The form of a file of cases: what a filter is given, and what is expected of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::message::ProtoMessage;

/// A file of cases.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// The filter's configuration, for cases without one of their own. Default: none.
    #[serde(default)]
    pub(crate) config: Value,
    /// The cases. Each has a Meshgate of its own, so that none sees what another left.
    #[schemars(length(min = 1))]
    pub(crate) cases: Vec<Case>,
}

/// One case: an exchange, or several after each other.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What it shows.
    pub(crate) name: String,
    /// The filter's configuration.
    #[serde(default)]
    pub(crate) config: Option<Value>,
    /// What the client asks. Default: GET /.
    #[serde(default)]
    pub(crate) request: Request,
    /// What the upstream, where the request goes in the end, answers. Default: 200, with nothing in it.
    #[serde(default)]
    pub(crate) upstream: Answer,
    /// What other clusters answer, by name: those that the filter calls, or sends requests to.
    #[serde(default)]
    pub(crate) clusters: BTreeMap<String, Answer>,
    /// What should come of it.
    pub(crate) expect: Expected,
    /// Exchanges after the first, in the same Meshgate.
    #[serde(default)]
    pub(crate) then: Vec<Step>,
}

/// A further exchange.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// What the client asks. Default: GET /.
    #[serde(default)]
    pub(crate) request: Request,
    /// What the upstream answers. Default: 200, with nothing in it.
    #[serde(default)]
    pub(crate) upstream: Answer,
    /// What other clusters answer, by name. They are those of the case.
    #[serde(default)]
    pub(crate) clusters: BTreeMap<String, Answer>,
    /// What should come of it.
    pub(crate) expect: Expected,
}

/// A request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Request {
    /// Default: GET.
    pub(crate) method: String,
    /// The path, with its query. Default: /.
    pub(crate) path: String,
    /// Fields. The authority is `host`; default: `filter.test`.
    pub(crate) headers: BTreeMap<String, Several>,
    /// The body. Default: none.
    pub(crate) body: String,
}

impl Default for Request {
    fn default() -> Self {
        Self { method: "GET".to_owned(), path: "/".to_owned(), headers: BTreeMap::new(), body: String::new() }
    }
}

/// What a server answers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Answer {
    /// Default: 200.
    #[schemars(range(min = 200, max = 599))]
    pub(crate) status: u16,
    /// Fields.
    pub(crate) headers: BTreeMap<String, Several>,
    /// The body. Default: empty.
    pub(crate) body: String,
    /// How long it takes to answer, such as 50ms. Default: nothing.
    #[schemars(with = "String", extend("format" = "duration"))]
    pub(crate) delay: Option<String>,
    /// It closes the connection instead of answering.
    pub(crate) fails: bool,
    /// What it answers to calls and streams of gRPC. Default: UNIMPLEMENTED.
    #[schemars(with = "Grpc")]
    pub(crate) grpc: Option<Grpc>,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            status: 200,
            headers: BTreeMap::new(),
            body: String::new(),
            delay: None,
            fails: false,
            grpc: None,
        }
    }
}

/// What a server answers to a call or a stream of gRPC.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Grpc {
    /// The messages: of a call one. Default: none.
    pub(crate) messages: Vec<ProtoMessage>,
    /// The status at the end. Default: 0, OK.
    #[schemars(range(max = 16))]
    pub(crate) status: u32,
    /// The words beside it. Default: none.
    pub(crate) words: String,
    /// Of a stream: a message is answered when one has come, and the stream ends after the last answer. Default: all is
    /// answered when the filter has sent all.
    pub(crate) each: bool,
}

/// A field's value, or several for the same field.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Several {
    /// One.
    One(String),
    /// Each in a line of its own.
    Many(Vec<String>),
}

impl Several {
    pub(crate) fn values(&self) -> &[String] {
        match self {
            Several::One(value) => std::slice::from_ref(value),
            Several::Many(values) => values,
        }
    }
}

/// What should come of an exchange. What is not said is not looked at.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expected {
    /// The configuration is refused, and the message contains this. Then nothing else can be expected.
    #[schemars(with = "String")]
    pub(crate) refused: Option<String>,
    /// What the client gets.
    #[schemars(with = "ExpectedResponse")]
    pub(crate) response: Option<ExpectedResponse>,
    /// What the upstream gets.
    #[schemars(with = "Calls")]
    pub(crate) upstream: Option<Calls>,
    /// What other clusters get, by name.
    pub(crate) clusters: BTreeMap<String, Calls>,
    /// What stands in the log: for each of these, a line contains it.
    pub(crate) log: Vec<String>,
}

/// What a client should get.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExpectedResponse {
    /// The status.
    #[schemars(with = "u16", range(min = 100, max = 599))]
    pub(crate) status: Option<u16>,
    /// Fields; null: it must not be there.
    pub(crate) headers: BTreeMap<String, Option<Several>>,
    /// The whole body.
    #[schemars(with = "String")]
    pub(crate) body: Option<String>,
    /// A part of the body.
    #[schemars(with = "String")]
    pub(crate) body_contains: Option<String>,
}

/// What a server should get: `none`, one request, or several in their order.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Calls {
    /// None at all.
    None(Nothing),
    /// One.
    One(ExpectedRequest),
    /// So many, in this order.
    Several(Vec<ExpectedRequest>),
}

impl Calls {
    pub(crate) fn requests(&self) -> &[ExpectedRequest] {
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
pub(crate) enum Nothing {
    /// None.
    None,
}

/// What a request should be like.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExpectedRequest {
    /// The method.
    #[schemars(with = "String")]
    pub(crate) method: Option<String>,
    /// The path, with its query.
    #[schemars(with = "String")]
    pub(crate) path: Option<String>,
    /// Fields, the authority as `host`; null: it must not be there.
    pub(crate) headers: BTreeMap<String, Option<Several>>,
    /// The whole body.
    #[schemars(with = "String")]
    pub(crate) body: Option<String>,
    /// A part of the body.
    #[schemars(with = "String")]
    pub(crate) body_contains: Option<String>,
    /// The messages of a call or stream of gRPC, all of them.
    #[schemars(with = "Vec<ProtoMessage>")]
    pub(crate) messages: Option<Vec<ProtoMessage>>,
}
