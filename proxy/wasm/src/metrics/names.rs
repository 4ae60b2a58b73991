//! The names of metrics: what is one, whose it is, and what else a metric shows itself under.

use super::series::MetricKind;

/// Bytes of a metric's name. Those that carry their labels, as Istio's filters make them, are long.
pub(super) const MAX_NAME: usize = 1_024;
/// Bytes of a label's name.
const MAX_LABEL: usize = 256;
/// What the names of metrics from `proxy_define_metric` begin with.
const DEFINED: &str = "wasmcustom_";
/// The first words of the proxy's own metrics, those of its process among them. What filters name like these would be shown twice,
/// on a page that Prometheus does not read then.
const OURS: [&str; 21] = [
    "meshgate_access",
    "meshgate_build",
    "meshgate_certificate",
    "meshgate_cluster",
    "meshgate_config",
    "meshgate_downstream",
    "meshgate_endpoint",
    "meshgate_filter",
    "meshgate_log",
    "meshgate_memory",
    "meshgate_mirror",
    "meshgate_mirrored",
    "meshgate_overload",
    "meshgate_panics",
    "meshgate_plugin",
    "meshgate_reloads",
    "meshgate_upgrades",
    "meshgate_upstream",
    "meshgate_uptime",
    "meshgate_wasm",
    "process",
];
/// What a histogram's name has behind it where its samples are shown.
pub(super) const SAMPLES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Whether a filter may name a series so.
pub(super) fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    starts_then(name, MAX_NAME, letter) && !name.starts_with(DEFINED)
}

/// `le` and names with two underscores in front are Prometheus's own.
pub(super) fn is_label(name: &str) -> bool {
    starts_then(name, MAX_LABEL, |byte| byte.is_ascii_alphabetic() || byte == b'_')
        && !name.starts_with("__")
        && name != "le"
}

fn starts_then(name: &str, most: usize, letter: impl Fn(u8) -> bool) -> bool {
    let mut bytes = name.bytes();
    name.len() <= most
        && bytes.next().is_some_and(&letter)
        && bytes.all(|byte| letter(byte) || byte.is_ascii_digit())
}

/// Whether it is the proxy's, or a histogram of this name would show samples under such a name.
pub(super) fn is_ours(name: &str) -> bool {
    let begins =
        |word: &&str| name.strip_prefix(*word).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    OURS.iter().any(begins)
}

/// How a metric from `proxy_define_metric` is shown.
pub(super) fn shown(name: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    DEFINED.chars().chain(name.chars().map(letter)).collect()
}

/// What such a name has behind it if another type has it already: others keep the types apart.
pub(super) fn suffix(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "_counter",
        MetricKind::Gauge => "_gauge",
        MetricKind::Histogram => "_histogram",
    }
}
