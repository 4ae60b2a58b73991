//! Proxies in front of a listener that are believed when they say, in `x-forwarded-for` and the like, for whom they ask.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Report;
use crate::formats::Complaint;
use crate::tree::{Kind, Node};
use crate::{Address, AddressRange};

/// The fields that are believed unless the file says which. Every proxy sets the first two; none of them says who the
/// client is to a server that lets clients in by that.
const FIELDS: [&str; 4] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"];

/// `forwarded: {from: [10.0.0.0/8]}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForwardedEntry {
    /// Who is believed: proxies that connect to this listener, and those in front of them. The client is the last address in
    /// `x-forwarded-for` that is not among these. On a Unix socket, whoever connects is believed.
    #[serde(default)]
    from: Vec<AddressRange>,
    /// The fields that are believed, of those named `x-forwarded-…`, `x-meshgate-…` and `forwarded`; others are removed. A
    /// proxy must set or remove all of them, or its clients can write what they like there. Default: [x-forwarded-for,
    /// x-forwarded-proto, x-forwarded-host, x-forwarded-port].
    #[serde(default)]
    #[schemars(with = "Vec<ForwardedField>", length(min = 1))]
    fields: Option<Vec<String>>,
}

/// For the schema alone: the name of a field that can be believed.
struct ForwardedField;

impl JsonSchema for ForwardedField {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ForwardedField".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "forwarded-field"})
    }
}

/// Proxies in front, and what they are believed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forwarded {
    /// Who is believed. Whoever connects to a Unix socket is, too.
    pub from: Vec<AddressRange>,
    /// The names of the fields in which they are believed, in lower case.
    pub fields: Vec<String>,
}

impl ForwardedEntry {
    pub(crate) fn with_defaults(self) -> Forwarded {
        let fields = match self.fields {
            Some(written) => written.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
            None => FIELDS.map(str::to_owned).to_vec(),
        };
        Forwarded { from: self.from, fields }
    }
}

/// Checks what a JSON Schema cannot say about it.
pub(crate) fn check(root: &Node, report: &mut Report<'_>) {
    for listener in root.get("listeners").map(Node::items).unwrap_or_default() {
        let Some(entry) = listener.entries().iter().find(|entry| entry.key == "forwarded") else { continue };
        let is_unix = listener
            .get("address")
            .and_then(Node::as_text)
            .and_then(Address::parse)
            .is_some_and(|address| matches!(address, Address::Unix(_)));
        let names_nobody = entry.value.get("from").is_none_or(|from| from.items().is_empty());
        if names_nobody && !is_unix && matches!(entry.value.kind, Kind::Map(_)) {
            let hint = "name the proxies in front by `from: [10.0.0.0/8]`";
            report.error_with(entry.at, "`forwarded` believes nobody here without `from`", hint);
        }
    }
}

/// Whether a field says where a request comes from.
pub(crate) fn field(text: &str) -> Result<(), Complaint> {
    let name = text.to_ascii_lowercase();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let rest = name.strip_prefix("x-forwarded-").or_else(|| name.strip_prefix("x-meshgate-"));
    match rest {
        Some(rest) if !rest.is_empty() && rest.bytes().all(is_token) => Ok(()),
        None if name == "forwarded" => Ok(()),
        _ => Err(Complaint {
            message: "is not a field that says where a request comes from".to_owned(),
            hint: Some("`x-forwarded-…`, `x-meshgate-…` or `forwarded`; others pass anyway".to_owned()),
        }),
    }
}
