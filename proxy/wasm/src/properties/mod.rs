//! The host's properties, by Envoy's names. [`find`] is the one place that knows every path; what has no source
//! (yet), such as TLS on a cleartext connection, is not found.

mod connection;
mod messages;
mod value;

pub use value::PropertyForm;
pub(crate) use value::Value;

use prost::Message;

use crate::attributes::Attributes;
use crate::exchange::HttpStream;
use crate::node::{self, Locality, Metadata};
use crate::plugin::PluginSpec;

/// Bytes of JSON that are looked into for one property: as much as is read in well under a millisecond.
const MAX_DYNAMIC: usize = 16 << 10;

/// Where a property is read.
pub(crate) struct Place<'a> {
    /// The effective stream's, if it is one of HTTP; none in a root context.
    pub(crate) http: Option<&'a HttpStream>,
    /// The effective stream's, whatever it is.
    pub(crate) attributes: Option<&'a Attributes>,
    pub(crate) spec: &'a PluginSpec,
}

/// The value at a path: segments separated by NUL. A NUL at the end is tolerated.
pub(crate) fn find<'a>(place: &Place<'a>, path: &[u8]) -> Option<Value<'a>> {
    let path = path.strip_suffix(&[0]).unwrap_or(path);
    // Of what is the host's, filters leave nothing: only the embedder can have put something in its place.
    served(place, path).or_else(|| left_by_filters(place.attributes?, path))
}

fn served<'a>(place: &Place<'a>, path: &[u8]) -> Option<Value<'a>> {
    let (first, tail) = split(path);
    let attributes = place.attributes;
    match first {
        b"request" => match place.http {
            Some(http) => messages::request(http, tail),
            None => messages::received(attributes?, tail),
        },
        b"response" => match place.http {
            Some(http) => messages::response(http, tail),
            None => messages::sent(attributes?, tail),
        },
        b"source" => connection::address(attributes?.source, tail),
        b"destination" => connection::address(attributes?.connection.destination, tail),
        b"connection" => connection::downstream(attributes?, tail),
        b"connection_id" if tail.is_empty() => connection::downstream(attributes?, b"id"),
        b"upstream" => connection::upstream(attributes?, tail),
        b"xds" => configured(place, tail),
        b"metadata" => dynamic(attributes?, tail),
        b"plugin_name" | b"plugin_root_id" | b"plugin_vm_id" if tail.is_empty() => {
            Some(plugin(place.spec, first))
        }
        // The names that these had before they moved below `xds`.
        b"node"
        | b"cluster_name"
        | b"cluster_metadata"
        | b"route_name"
        | b"listener_direction"
        | b"listener_metadata"
        | b"upstream_host_metadata" => configured(place, path),
        _ => None,
    }
}

/// A path's first segment, and what follows its separator.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|byte| *byte == 0) {
        Some(end) => (&path[..end], &path[end + 1..]),
        None => (path, &[]),
    }
}

fn plugin<'a>(spec: &'a PluginSpec, name: &[u8]) -> Value<'a> {
    Value::Bytes(match name {
        b"plugin_name" => spec.name.as_bytes(),
        b"plugin_root_id" => spec.root_id.as_bytes(),
        _ => spec.vm_id.as_bytes(),
    })
}

/// What the configuration says: of the proxy, and of the parts of it that an exchange meets.
fn configured<'a>(place: &Place<'a>, path: &[u8]) -> Option<Value<'a>> {
    let (name, tail) = split(path);
    let listener = place.attributes.and_then(|attributes| attributes.listener.as_deref());
    match name {
        b"node" => return node(&place.spec.node, tail),
        b"listener_direction" if tail.is_empty() => {
            // Filters ask for it while they are configured.
            return Some(Value::Number(listener.map_or(0, |listener| listener.direction as u64)));
        }
        _ => {}
    }
    let attributes = place.attributes?;
    match name {
        b"cluster_name" if tail.is_empty() => Some(Value::Bytes(attributes.cluster.as_ref()?.as_bytes())),
        b"cluster_metadata" => metadata(attributes.cluster_metadata.as_deref()?, tail),
        b"route_name" if tail.is_empty() => Some(Value::Bytes(attributes.route.as_ref()?.as_bytes())),
        b"listener_metadata" => metadata(&listener?.metadata, tail),
        b"upstream_host_metadata" => metadata(&attributes.upstream_facts.as_ref()?.metadata, tail),
        _ => None,
    }
}

/// Envoy's own filters leave what they find out as metadata by their names. Here it is what filters left as a property of that
/// name, if that is an object of JSON; from larger ones than [`MAX_DYNAMIC`] nothing is picked.
fn dynamic<'a>(attributes: &'a Attributes, path: &[u8]) -> Option<Value<'a>> {
    let (name, tail) = split(path.strip_prefix(b"filter_metadata\0")?);
    let left = left_by_filters(attributes, name)?.encode(PropertyForm::Binary);
    let left = serde_json::from_slice(Some(&left).filter(|left| left.len() <= MAX_DYNAMIC)?).ok()?;
    value::walk(&left, tail).and_then(Value::into_owned)
}

fn node<'a>(node: &'a node::Node, path: &[u8]) -> Option<Value<'a>> {
    let (name, tail) = split(path);
    match name {
        b"locality" => locality(&node.locality, tail),
        b"" if tail.is_empty() => Some(Value::Made(node.message())),
        b"id" if tail.is_empty() => Some(Value::Bytes(node.id.as_bytes())),
        b"cluster" if tail.is_empty() => Some(Value::Bytes(node.cluster.as_bytes())),
        b"metadata" => value::walk(&node.metadata, tail),
        _ => None,
    }
}

/// Empty parts are not known.
fn locality<'a>(locality: &'a Locality, part: &[u8]) -> Option<Value<'a>> {
    let part = match part {
        b"" => {
            return Some(Value::Made(locality.encode_to_vec())).filter(|_| *locality != Locality::default());
        }
        b"region" => &locality.region,
        b"zone" => &locality.zone,
        b"sub_zone" => &locality.sub_zone,
        _ => return None,
    };
    (!part.is_empty()).then_some(Value::Bytes(part.as_bytes()))
}

fn metadata<'a>(metadata: &'a Metadata, path: &[u8]) -> Option<Value<'a>> {
    let (name, tail) = split(path);
    match name {
        b"" if tail.is_empty() => Some(Value::Made(node::metadata_message(metadata))),
        b"filter_metadata" => value::walk(metadata, tail),
        _ => None,
    }
}

/// What filters set: of the exchange, then of its connection. Envoy keeps such values in its filter state under
/// names with a prefix, by which they are found, too.
fn left_by_filters<'a>(attributes: &'a Attributes, path: &[u8]) -> Option<Value<'a>> {
    let path = path.strip_prefix(b"filter_state\0wasm.").unwrap_or(path);
    if let Some(value) = attributes.custom.find(path) {
        return Some(Value::Bytes(value));
    }
    attributes.connection.custom.borrow().find(path).map(|value| Value::Made(value.to_vec()))
}
