//! What the process does when its memory runs short: from which share of it on.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Report;
use crate::references::{size, whole};
use crate::tree::{Kind, Node};
use crate::units::SizeText;

/// How much memory the process may use, and from which percentages on it does less.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Overload {
    /// Bytes; none: nine tenths of what the process's control group allows, if there is one that bounds it.
    pub memory: Option<u64>,
    /// From here on nothing is read for which there is no room elsewhere.
    pub hold_at: u32,
    /// From here on new requests are refused.
    pub refuse_at: u32,
    /// From here on connections are closed.
    pub close_at: u32,
}

impl Default for Overload {
    fn default() -> Self {
        Self { memory: None, hold_at: 80, refuse_at: 90, close_at: 95 }
    }
}

/// `overload: {memory: 512MiB, refuse_at: 90}`
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OverloadEntry {
    /// How much memory the process may use. Default: nine tenths of what its control group allows; without one there is no bound.
    #[schemars(with = "SizeText")]
    memory: Option<SizeText>,
    /// From so many percent of it on, bodies of new requests wait, and no more of a response is read while its client does not take
    /// what there is. Default: 80.
    #[schemars(with = "u32", range(min = 1, max = 100))]
    hold_at: Option<u32>,
    /// From so many percent on, new requests are answered with 503 and `retry-after`, and `/ready` says 503. At least `hold_at`.
    /// Default: 90.
    #[schemars(with = "u32", range(min = 1, max = 100))]
    refuse_at: Option<u32>,
    /// From so many percent on, connections are closed: new ones, idle ones, and those whose clients do not take what there is for
    /// them. At least `refuse_at`. Default: 95.
    #[schemars(with = "u32", range(min = 1, max = 100))]
    close_at: Option<u32>,
}

impl OverloadEntry {
    pub(crate) fn resolve(self) -> Overload {
        let default = Overload::default();
        Overload {
            memory: self.memory.map(|memory| memory.0),
            hold_at: self.hold_at.unwrap_or(default.hold_at),
            refuse_at: self.refuse_at.unwrap_or(default.refuse_at),
            close_at: self.close_at.unwrap_or(default.close_at),
        }
    }
}

/// What a schema cannot say of it.
pub(crate) fn check(root: &Node, report: &mut Report<'_>) {
    let Some(overload) = root.get("overload") else { return };
    // Less would be used before the first connection; more no machine has.
    size(overload, "memory", 16 << 20, 1 << 50, report);
    let default = Overload::default();
    let stages =
        [("hold_at", default.hold_at), ("refuse_at", default.refuse_at), ("close_at", default.close_at)];
    for (key, _) in stages {
        whole(overload, key, report);
    }
    for [(earlier, earlier_default), (later, later_default)] in
        [[stages[0], stages[1]], [stages[1], stages[2]]]
    {
        let percent = |key, default: u32| match overload.get(key) {
            Some(Node { kind: Kind::Number(number, _), .. }) => number.as_f64(),
            Some(_) => None,
            None => Some(f64::from(default)),
        };
        if let (Some(first), Some(then)) = (percent(earlier, earlier_default), percent(later, later_default))
            && first > then
        {
            let at =
                overload.get(later).or_else(|| overload.get(earlier)).map_or(overload.at, |node| node.at);
            report.error(
                at,
                format!("`{later}` ({then}) is less than `{earlier}` ({first}), which comes before it"),
            );
        }
    }
}
