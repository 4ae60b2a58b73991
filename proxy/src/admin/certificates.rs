//! The certificates in use: the page and the metrics. Keys are nowhere near.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::filters::escaped;
use super::state::{CertificateSummary, SnapshotSummary, State};
use crate::telemetry::timestamp::rfc3339;

/// `/certificates`: every certificate in use, and until when it is good.
pub(super) fn page(state: &State) -> Value {
    let snapshot = state.snapshot();
    let now = SystemTime::now();
    let certificates: Vec<Value> = snapshot
        .iter()
        .flat_map(|snapshot| snapshot.certificates.iter().map(|one| describe(one, snapshot, now)))
        .collect();
    json!({ "version": snapshot.map(|snapshot| snapshot.version.clone()), "certificates": certificates })
}

fn describe(certificate: &CertificateSummary, snapshot: &SnapshotSummary, now: SystemTime) -> Value {
    let facts = &certificate.held.facts;
    let left = facts.not_after.duration_since(now).ok();
    let soon = snapshot.expiry_warnings.iter().max();
    let standing = match left {
        None => "expired",
        Some(_) if now < facts.not_before => "not yet valid",
        Some(left) if soon.is_some_and(|soon| left <= *soon) => "expires soon",
        Some(_) => "valid",
    };
    json!({
        "file": certificate.held.file.to_string_lossy(),
        "role": certificate.held.role.label(),
        "used_by": certificate.used_by,
        "subject": facts.subject,
        "issuer": facts.issuer,
        "dns_names": facts.dns_names,
        "uris": facts.uris,
        "addresses": facts.addresses,
        "serial": facts.serial,
        "sha256": facts.sha256,
        "not_before": rfc3339(facts.not_before),
        "not_after": rfc3339(facts.not_after),
        "seconds_left": left.map_or(0, |left| left.as_secs()),
        "standing": standing,
    })
}

/// Appends when certificates end to `/metrics`: of each file the first end, by what it is used for.
pub(super) fn metrics(state: &Arc<State>, out: &mut String) {
    let Some(snapshot) = state.snapshot() else { return };
    let mut ends: BTreeMap<_, SystemTime> = BTreeMap::new();
    for CertificateSummary { used_by, held } in &snapshot.certificates {
        for user in used_by {
            let end = ends.entry((&held.file, held.role, user)).or_insert(held.facts.not_after);
            *end = held.facts.not_after.min(*end);
        }
    }
    if ends.is_empty() {
        return;
    }
    let name = "meshgate_certificate_expiry_timestamp_seconds";
    let help = "When the first certificate in the file ends.";
    // Writing to a String cannot fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n");
    for ((file, role, user), end) in ends {
        let (file, user) = (file.to_string_lossy(), escaped(user));
        let seconds = end.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (file, role) = (escaped(&file), role.label());
        let _ = writeln!(out, "{name}{{file=\"{file}\",role=\"{role}\",used_by=\"{user}\"}} {seconds}");
    }
}
