//! What a proxy is told about itself, its listeners and its clusters in the configuration, for filters to read.
//! The serialized form of a whole node or of whole metadata is Envoy's (`envoy.config.core.v3`).

use std::collections::BTreeMap;

use prost::Message;
use serde_json::Value;

/// Named values, nested as in JSON.
pub type Metadata = serde_json::Map<String, Value>;

/// This proxy, as its operator names it: the properties `xds.node` and `node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// Which one it is.
    pub id: String,
    /// The group of proxies it belongs to.
    pub cluster: String,
    /// Where it is.
    pub locality: Locality,
    /// Anything else.
    pub metadata: Metadata,
}

/// Where something is, from large to small, as far as it is known: `envoy.config.core.v3.Locality`.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Locality {
    /// Such as a country's data centres.
    #[prost(string, tag = "1")]
    pub region: String,
    /// A part of it that fails by itself.
    #[prost(string, tag = "2")]
    pub zone: String,
    /// A part of that.
    #[prost(string, tag = "3")]
    pub sub_zone: String,
}

impl Node {
    /// As `envoy.config.core.v3.Node`.
    pub(crate) fn message(&self) -> Vec<u8> {
        let metadata = (!self.metadata.is_empty()).then(|| fields(&self.metadata));
        let locality = Some(self.locality.clone()).filter(|locality| *locality != Locality::default());
        NodeMessage { id: self.id.clone(), cluster: self.cluster.clone(), metadata, locality }.encode_to_vec()
    }
}

/// As `envoy.config.core.v3.Metadata`: maps by the name of who reads them. What is no map has no place in it.
pub(crate) fn metadata_message(metadata: &Metadata) -> Vec<u8> {
    let maps = metadata.iter().filter_map(|(name, value)| Some((name.clone(), fields(value.as_object()?))));
    MetadataMessage { filter_metadata: maps.collect() }.encode_to_vec()
}

#[derive(Clone, PartialEq, Message)]
struct NodeMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    cluster: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<Fields>,
    #[prost(message, optional, tag = "4")]
    locality: Option<Locality>,
}

#[derive(Clone, PartialEq, Message)]
struct MetadataMessage {
    #[prost(btree_map = "string, message", tag = "1")]
    filter_metadata: BTreeMap<String, Fields>,
}

/// `google.protobuf.Struct`
#[derive(Clone, PartialEq, Message)]
struct Fields {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Field>,
}

/// `google.protobuf.Value`
#[derive(Clone, PartialEq, Message)]
struct Field {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(int32, tag = "1")]
    Null(i32),
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(message, tag = "5")]
    Fields(Fields),
    #[prost(message, tag = "6")]
    List(List),
}

/// `google.protobuf.ListValue`
#[derive(Clone, PartialEq, Message)]
struct List {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Field>,
}

fn fields(map: &Metadata) -> Fields {
    Fields { fields: map.iter().map(|(name, value)| (name.clone(), field(value))).collect() }
}

fn field(value: &Value) -> Field {
    let kind = match value {
        Value::Null => Kind::Null(0),
        Value::Bool(value) => Kind::Bool(*value),
        Value::Number(number) => Kind::Number(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::Text(text.clone()),
        Value::Array(values) => Kind::List(List { values: values.iter().map(field).collect() }),
        Value::Object(map) => Kind::Fields(fields(map)),
    };
    Field { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_envoys_message() {
        let Value::Object(metadata) = json!({"NAME": "web", "ports": [80], "on": true}) else { panic!() };
        let locality = Locality { region: "north".into(), ..Locality::default() };
        let node = Node { id: "a".into(), cluster: "b".into(), locality: locality.clone(), metadata };
        let decoded = NodeMessage::decode(&*node.message()).unwrap();
        assert_eq!(decoded.locality, Some(locality));
        let fields = decoded.metadata.unwrap().fields;
        assert_eq!(fields["NAME"].kind, Some(Kind::Text("web".into())));
        assert_eq!(fields["on"].kind, Some(Kind::Bool(true)));
        let port = Field { kind: Some(Kind::Number(80.0)) };
        assert_eq!(fields["ports"].kind, Some(Kind::List(List { values: vec![port] })));
        // Fields 1 and 2, each text of one byte.
        let bare = Node { metadata: Metadata::new(), locality: Locality::default(), ..node };
        assert_eq!(bare.message(), b"\x0a\x01a\x12\x01b");
        assert_eq!(Node::default().message(), b"");
    }

    #[test]
    fn metadata_holds_maps_by_name() {
        let Value::Object(metadata) = json!({"a.filter": {"key": null}, "odd": 1}) else { panic!() };
        let decoded = MetadataMessage::decode(&*metadata_message(&metadata)).unwrap();
        assert_eq!(decoded.filter_metadata.len(), 1);
        assert_eq!(decoded.filter_metadata["a.filter"].fields["key"].kind, Some(Kind::Null(0)));
    }
}
