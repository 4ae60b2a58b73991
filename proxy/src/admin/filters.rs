//! How much the filters run: the page and the metrics.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use meshgate_wasm::{AbiVersion, Ledger, Limit, Shared, VmError};
use serde_json::{Value, json};

use super::state::{FilterSummary, PluginTotals, State};
use crate::telemetry::timestamp::rfc3339;

/// `/filters`: every filter in every chain, with what it runs and how much.
pub(super) fn page(state: &State) -> Value {
    let snapshot = state.snapshot();
    let filters = snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.filters);
    let filters: Vec<Value> = filters.iter().map(|filter| describe(filter, state)).collect();
    json!({ "version": snapshot.map(|snapshot| snapshot.version.clone()), "filters": filters })
}

fn describe(filter: &FilterSummary, state: &State) -> Value {
    let module = &filter.plugin.module;
    // The loader has checked the manifest; here it is only shown.
    let manifest: Option<Value> = module.manifest().and_then(|json| serde_json::from_slice(json).ok());
    let from_manifest = |field: &str| manifest.as_ref().and_then(|manifest| manifest.get(field)).cloned();
    let totals = state.totals(&filter.plugin).unwrap_or_default();
    let ledgers = state.shared().ledgers();
    let ledger = ledgers.iter().find(|(name, _)| *name == filter.name).map(|(_, ledger)| ledger);
    json!({
        "chain": filter.chain,
        "service": filter.chain.is_none().then_some(if filter.singleton { "singleton" } else { "worker" }),
        "name": filter.name,
        "module": filter.module,
        "sha256": module.hash().to_string(),
        "manifest": manifest.is_some().then(|| json!({
            "name": from_manifest("name"),
            "version": from_manifest("version"),
            "sdk": from_manifest("sdk"),
        })),
        "abi": abi(module.abi()),
        "unknown_imports": module.stubs(),
        "callbacks": totals.callbacks,
        "mean_callback_nanoseconds": mean_nanoseconds(totals),
        "traps": totals.traps,
        "dropped_log_lines": totals.dropped_log_lines,
        "state": standing(totals),
        "quarantined_until": totals.quarantined_until.map(rfc3339),
        "workers": totals.workers,
        "contexts": totals.contexts,
        "vms": totals.vms,
        "memory": totals.memory,
        "failures": ledger.map(|ledger| failures(ledger)),
        "limits_exceeded": ledger.map(|ledger| exceeded(ledger)),
    })
}

/// Where a plugin stands, in one word: the workers may differ.
fn standing(totals: PluginTotals) -> &'static str {
    match totals.quarantined {
        0 if totals.workers == 0 => "not running",
        0 => "running",
        workers if workers == totals.workers => "quarantined",
        _ => "partly quarantined",
    }
}

/// How often callbacks failed, by cause; what never happened is left out. Of all plugins of the filter's name.
fn failures(ledger: &Ledger) -> BTreeMap<&'static str, u64> {
    let counted = VmError::CAUSES.into_iter().map(|cause| (cause, ledger.failures(cause)));
    counted.filter(|(_, count)| *count > 0).collect()
}

/// How often limits were met, likewise.
fn exceeded(ledger: &Ledger) -> BTreeMap<&'static str, u64> {
    let counted = Limit::ALL.iter().map(|limit| (limit.name(), ledger.exceeded(*limit)));
    counted.filter(|(_, count)| *count > 0).collect()
}

fn abi(version: AbiVersion) -> &'static str {
    match version {
        AbiVersion::V0_1_0 => "0.1.0",
        AbiVersion::V0_2_0 => "0.2.0",
        AbiVersion::V0_2_1 => "0.2.1",
    }
}

fn mean_nanoseconds(totals: PluginTotals) -> Option<u64> {
    let mean = totals.time.as_nanos().checked_div(u128::from(totals.callbacks))?;
    u64::try_from(mean).ok()
}

/// Appends the plugins' counters to `/metrics`. Plugins of the same name, with different configurations, share a series.
pub(super) fn metrics(state: &Arc<State>, out: &mut String) {
    let mut plugins = BTreeMap::<String, PluginTotals>::new();
    for (name, totals) in state.all_totals() {
        let sum = plugins.entry(name).or_default();
        *sum = sum.plus(totals);
    }
    let mut series = |name: &str, help: &str, value: fn(PluginTotals) -> String| {
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} counter\n");
        for (plugin, totals) in &plugins {
            let _ = writeln!(out, "{name}{{plugin=\"{}\"}} {}", escaped(plugin), value(*totals));
        }
    };
    series("meshgate_plugin_callbacks_total", "Callbacks run.", |totals| totals.callbacks.to_string());
    series(
        "meshgate_plugin_callback_seconds_total",
        "Time spent in callbacks, estimated: of the short ones a few are timed.",
        |totals| totals.time.as_secs_f64().to_string(),
    );
    series("meshgate_plugin_traps_total", "Callbacks that failed.", |totals| totals.traps.to_string());
    series("meshgate_plugin_log_lines_dropped_total", "Log lines over a plugin's rate.", |totals| {
        totals.dropped_log_lines.to_string()
    });
    let mut gauge = |name: &str, help: &str, value: fn(PluginTotals) -> u64| {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for (plugin, totals) in &plugins {
            let _ = writeln!(out, "{name}{{plugin=\"{}\"}} {}", escaped(plugin), value(*totals));
        }
    };
    gauge("meshgate_plugin_contexts", "Live stream contexts.", |totals| totals.contexts);
    gauge("meshgate_plugin_quarantined", "Workers on which the plugin is in quarantine.", |totals| {
        totals.quarantined
    });
    filter_metrics(state.shared(), out);
}

/// What is counted by filter name, over all workers and reloads.
fn filter_metrics(shared: &Shared, out: &mut String) {
    type Counts = fn(&Ledger) -> BTreeMap<&'static str, u64>;
    let ledgers = shared.ledgers();
    let mut counted = |name: &str, help: &str, label: &str, counts: Counts| {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} counter\n");
        for (plugin, ledger) in &ledgers {
            for (value, count) in counts(ledger) {
                let _ = writeln!(out, "{name}{{plugin=\"{}\",{label}=\"{value}\"}} {count}", escaped(plugin));
            }
        }
    };
    counted("meshgate_plugin_failures_total", "Callbacks that failed, by cause.", "cause", failures);
    counted("meshgate_plugin_limit_exceeded_total", "Limits that were met.", "limit", exceeded);
    let name = "meshgate_plugin_memory_bytes";
    let _ = write!(out, "# HELP {name} Linear memory of the VMs started for it.\n# TYPE {name} gauge\n");
    for (plugin, ledger) in &ledgers {
        let _ = writeln!(out, "{name}{{plugin=\"{}\"}} {}", escaped(plugin), ledger.memory());
    }
    let bounds = shared.bounds();
    for (name, help, value) in [
        ("meshgate_wasm_memory_bytes", "Linear memory of all VMs.", bounds.memory()),
        (
            "meshgate_wasm_exchange_instances",
            "Instances that serve one exchange each.",
            bounds.exchange_instances(),
        ),
    ] {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    }
}

/// A label value in the text format.
pub(super) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
