//! When a request is sent again: the conditions by their names, and how a try is compared with them.

use std::borrow::Cow;
use std::fmt;

use meshgate_sdk::attempts::{Attempt, Ending};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// A status from 500 on, or no response at all.
    ServerError,
    /// 502, 503 or 504, or no response at all.
    GatewayError,
    /// No connection.
    ConnectFailure,
    /// The endpoint has not begun with the request, and says so.
    RefusedStream,
    /// The connection ended before anything of the request was written to it.
    ResetBeforeRequest,
    /// The connection or the stream ended before a response, or we ended it because the try took too long.
    Reset,
    /// A try took longer than it may.
    Timeout,
    /// 409.
    Retriable4xx,
    /// Any of these statuses, the last included.
    Status(u16, u16),
    /// gRPC's status, in an answer of nothing but trailers.
    Grpc(u32),
    /// A response that says that a rate limit refused the request.
    RateLimited,
    /// A field of the response.
    Field(Field),
}

/// A field that a response has, with this value if one is given.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Field {
    /// The field's name.
    pub(crate) header: String,
    /// Its value, whole. Default: any.
    pub(crate) value: Option<String>,
}

/// What a response has that a rate limit refused (Envoy's name for it).
pub(crate) const RATE_LIMITED: &str = "x-envoy-ratelimited";

const NAMES: [(&str, Condition); 14] = [
    ("5xx", Condition::ServerError),
    ("gateway-error", Condition::GatewayError),
    ("connect-failure", Condition::ConnectFailure),
    ("refused-stream", Condition::RefusedStream),
    ("reset-before-request", Condition::ResetBeforeRequest),
    ("reset", Condition::Reset),
    ("timeout", Condition::Timeout),
    ("retriable-4xx", Condition::Retriable4xx),
    ("cancelled", Condition::Grpc(1)),
    ("deadline-exceeded", Condition::Grpc(4)),
    ("resource-exhausted", Condition::Grpc(8)),
    ("internal", Condition::Grpc(13)),
    ("unavailable", Condition::Grpc(14)),
    ("envoy-ratelimited", Condition::RateLimited),
];

impl Condition {
    /// Reads a name, a status, or a range of them.
    fn parse(text: &str) -> Option<Self> {
        if let Some((_, condition)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Some(condition.clone());
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (status(first)?, status(last)?);
        (first <= last).then_some(Self::Status(first, last))
    }

    /// Whether a try ended like that. `field` is asked for fields of the response, if there was one.
    pub(crate) fn fits(&self, attempt: &Attempt, field: impl Fn(&str) -> Option<String>) -> bool {
        let (ending, status) = (attempt.ending(), attempt.status());
        // What is never sent again for is no condition's.
        let nothing =
            !matches!(ending, Ending::Response | Ending::Overflow | Ending::NoEndpoint | Ending::Slow);
        let field = |name: &str| if ending == Ending::Response { field(name) } else { None };
        match self {
            Self::ServerError => nothing || status >= 500,
            Self::GatewayError => nothing || matches!(status, 502..=504),
            Self::ConnectFailure => ending == Ending::ConnectFailure,
            Self::RefusedStream => ending == Ending::Refused,
            Self::ResetBeforeRequest => ending == Ending::ResetBeforeRequest,
            Self::Reset => matches!(
                ending,
                Ending::Reset
                    | Ending::ResetBeforeRequest
                    | Ending::Refused
                    | Ending::Protocol
                    | Ending::Timeout
            ),
            Self::Timeout => ending == Ending::Timeout,
            Self::Retriable4xx => status == 409,
            Self::Status(first, last) => (first..=last).contains(&&status),
            Self::Grpc(code) => attempt.grpc_status() == Some(*code),
            Self::RateLimited => field(RATE_LIMITED).is_some(),
            Self::Field(Field { header, value: None }) => field(header).is_some(),
            Self::Field(Field { header, value }) => field(header) == *value,
        }
    }

    /// The lowest status that a response may have for this condition to fit; `None` if its status does not matter.
    pub(crate) fn lowest_status(&self) -> Option<u16> {
        match self {
            Self::ServerError => Some(500),
            Self::GatewayError => Some(502),
            Self::Retriable4xx => Some(409),
            Self::Status(first, _) => Some(*first),
            Self::RateLimited | Self::Field(_) => Some(0),
            _ => None,
        }
    }
}

/// A status that a response can have.
fn status(text: &str) -> Option<u16> {
    let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|status| is_number && (100..=599).contains(status))
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (NAMES.iter().find(|(_, known)| known == self), self) {
            (Some((name, _)), _) => f.write_str(name),
            (None, Self::Status(first, last)) if first == last => write!(f, "{first}"),
            (None, Self::Status(first, last)) => write!(f, "{first}-{last}"),
            (None, Self::Field(field)) => f.write_str(&field.header),
            (None, other) => write!(f, "{other:?}"),
        }
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Condition;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a condition such as 5xx, connect-failure, 503 or `header: x-again`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Condition, E> {
                Condition::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Condition, E> {
                let condition = Condition::parse(&number.to_string());
                condition.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Condition, A::Error> {
                Field::deserialize(MapAccessDeserializer::new(map)).map(Condition::Field)
            }
        }

        deserializer.deserialize_any(Text)
    }
}

impl JsonSchema for Condition {
    fn schema_name() -> Cow<'static, str> {
        "Condition".into()
    }

    fn json_schema(schemas: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                {"type": "string", "enum": NAMES.map(|(name, _)| name)},
                {"type": "integer", "minimum": 100, "maximum": 599},
                {"type": "string", "format": "status-codes"},
                schemas.subschema_for::<Field>(),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_as_they_are_written() {
        for (name, condition) in NAMES {
            assert_eq!((Condition::parse(name), condition.to_string().as_str()), (Some(condition), name));
        }
        assert_eq!(Condition::parse("503"), Some(Condition::Status(503, 503)));
        assert_eq!(Condition::parse("500-503"), Some(Condition::Status(500, 503)));
        assert_eq!(serde_json::from_str::<Condition>("429").unwrap().to_string(), "429");
        for wrong in
            ["", "gateway", "retriable-status-500", "5xx ", "600", "99", "503-500", "500-", "4294967796"]
        {
            assert_eq!(Condition::parse(wrong), None, "{wrong}");
        }
        let field = |value: Option<&str>| {
            Condition::Field(Field { header: "x-again".to_owned(), value: value.map(str::to_owned) })
        };
        let read = |text| serde_json::from_str::<Condition>(text).unwrap();
        assert_eq!(read(r#"{"header": "x-again"}"#), field(None));
        assert_eq!(read(r#"{"header": "x-again", "value": "yes"}"#), field(Some("yes")));
        let error = serde_json::from_str::<Condition>("\"4xx\"").unwrap_err().to_string();
        assert!(error.contains("expected a condition such as 5xx"), "{error}");
    }
}
