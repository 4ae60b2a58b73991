//! `filters.NAME.compatibility`: which way a filter wants it where Proxy-Wasm hosts differ.

use schemars::JsonSchema;
use serde::Deserialize;

/// Switches for filters that rely on what another host does. The default is what Envoy does.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Compatibility {
    /// The form in which the filter gets properties. Default: binary.
    #[serde(default)]
    pub properties: PropertyForm,
    /// How an HTTP call ends that gets no response. Default: response.
    #[serde(default)]
    pub failed_calls: FailedCalls,
    /// Where memory for what the filter is given comes from. Default: proxy_on_memory_allocate.
    #[serde(default)]
    pub allocator: Allocator,
    /// What StopIteration means in a headers callback. Default: stop_all.
    #[serde(default)]
    pub stop_iteration: StopIteration,
    /// What a field of a map is that does not exist now, such as trailers before they came. Default: not_found.
    #[serde(default)]
    pub absent_maps: AbsentMaps,
    /// What a null pointer is as a value for shared data. Default: remove.
    #[serde(default)]
    pub null_values: NullValues,
}

/// The form of properties.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum PropertyForm {
    /// As Envoy has it: numbers and times as 8 bytes, booleans as one, addresses with their port.
    #[default]
    Binary,
    /// As Kong has it: everything as text, addresses without their port.
    Text,
}

/// How an HTTP call ends that gets no response.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum FailedCalls {
    /// With a 503 if there was no connection or it broke before a response, with a 504 if it took too long; with nothing if a
    /// response broke in the middle.
    #[default]
    Response,
    /// Always with nothing: no fields, no body, no trailers, and the reason in `:dispatch_status`.
    Empty,
}

/// Where memory in the guest comes from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Allocator {
    /// From `proxy_on_memory_allocate`, and from `malloc` if there is none.
    #[default]
    ProxyOnMemoryAllocate,
    /// From `malloc`, and from `proxy_on_memory_allocate` if there is none.
    Malloc,
}

/// What StopIteration means in a headers callback.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum StopIteration {
    /// The filter gets nothing more until it resumes.
    #[default]
    StopAll,
    /// The headers are held, and the filter gets the body all the same; a Continue there lets the headers go.
    HoldHeaders,
}

/// What a field of a map is that does not exist now.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum AbsentMaps {
    /// NOT_FOUND, with which every SDK can do.
    #[default]
    NotFound,
    /// BAD_ARGUMENT, as Envoy has it.
    BadArgument,
}

/// What a null pointer is as a value for shared data.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum NullValues {
    /// It removes the key: the Rust SDK means it so.
    #[default]
    Remove,
    /// It is an empty value, as in Envoy.
    Store,
}
