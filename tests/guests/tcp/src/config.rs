//! The guest's configuration. What the keys mean is written in `lib.rs`.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) name: Option<String>,
    pub(crate) downstream: Edit,
    pub(crate) upstream: Edit,
    pub(crate) call: Option<Call>,
    pub(crate) close: Option<Close>,
    pub(crate) pause: Option<Phase>,
    pub(crate) trap: Option<Phase>,
    pub(crate) cluster: Option<String>,
    pub(crate) log: Option<String>,
    pub(crate) by_first_byte: BTreeMap<String, String>,
    pub(crate) properties: Vec<String>,
}

/// What is done to one side's data.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Edit {
    pub(crate) uppercase: bool,
    pub(crate) prepend: Option<String>,
    pub(crate) append: Option<String>,
    pub(crate) double: bool,
    pub(crate) swallow: bool,
    pub(crate) hold: usize,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    NewConnection,
    DownstreamData,
    UpstreamData,
    DownstreamClose,
    UpstreamClose,
    Call,
    Done,
    Log,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    pub(crate) at: Phase,
    pub(crate) cluster: String,
    pub(crate) path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Close {
    pub(crate) at: Phase,
    pub(crate) side: Side,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    Downstream,
    Upstream,
}
