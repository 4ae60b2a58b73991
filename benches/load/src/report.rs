//! From rounds to tables: medians over rounds, and ratios taken within each round before their median is taken, so
//! that a machine that is slower in one round than in another does not distort them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::machine::Machine;
use crate::process::{Cores, Memory};
use crate::rounds::Round;
use crate::subjects::Subject;
use crate::workload::Workload;

const MIB: f64 = 1024.0 * 1024.0;

/// Everything about one comparison, as it goes into the JSON file.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) command: String,
    pub(crate) cores: Cores,
    pub(crate) connections: usize,
    pub(crate) seconds: f64,
    /// By subject.
    pub(crate) versions: BTreeMap<&'static str, String>,
    /// Why a subject was left out, by subject.
    pub(crate) missing: BTreeMap<&'static str, String>,
    /// Whether one of these is installed but did not work.
    pub(crate) broken: bool,
    pub(crate) rounds: Vec<Round>,
}

impl Report {
    /// The report for people.
    pub(crate) fn markdown(&self, subjects: &[Subject]) -> String {
        let mut text = String::new();
        self.write(&mut text, subjects).unwrap_or_else(|error| text = format!("report: {error}"));
        text
    }

    fn write(&self, text: &mut String, subjects: &[Subject]) -> std::fmt::Result {
        writeln!(text, "Measured {} on {}.\n", self.date, self.machine)?;
        writeln!(text, "Command: `{}`", self.command)?;
        let rounds = self.rounds.iter().map(|round| round.round).max().unwrap_or(0);
        writeln!(
            text,
            "(rounds: {rounds} of {} s each; {} connections; the proxy on core {}, load and backend on core {})\n",
            self.seconds, self.connections, self.cores.proxy, self.cores.load
        )?;
        let versions: Vec<String> = subjects
            .iter()
            .filter_map(|subject| Some((subject.title.split(',').next()?, self.versions.get(subject.key)?)))
            .filter(|(_, version)| !version.is_empty())
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        let mut unique = versions;
        unique.dedup();
        writeln!(text, "Versions: {}.\n", unique.join(", "))?;
        for subject in subjects {
            if let Some(reason) = self.missing.get(subject.key) {
                writeln!(text, "- Not measured: {}: {reason}.", subject.title)?;
            }
        }
        for workload in Workload::ALL {
            if self.rounds.iter().any(|round| round.workload == workload) {
                writeln!(text, "\n### {}\n", workload.title())?;
                self.table(text, subjects, workload)?;
            }
        }
        writeln!(text)?;
        self.figures(text)
    }

    fn table(&self, text: &mut String, subjects: &[Subject], workload: Workload) -> std::fmt::Result {
        let throughput = if workload.is_bulk() { "MiB/s" } else { "requests/s" };
        writeln!(
            text,
            "| | CPU per request | to nginx | {throughput} | of direct | p50 | p99 | RSS / PSS at rest | after load |"
        )?;
        writeln!(text, "|---|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        for subject in subjects {
            let rounds: Vec<&Round> = self.of(subject.key, workload).collect();
            if rounds.is_empty() {
                continue;
            }
            let faults: BTreeMap<&String, u64> =
                rounds.iter().flat_map(|round| &round.errors).map(|(error, count)| (error, *count)).collect();
            if let Some((error, count)) = faults.first_key_value() {
                writeln!(text, "| {} | invalid: {count} × {error} | | | | | | | |", subject.title)?;
                continue;
            }
            let memory = |of: fn(&Round) -> Option<Memory>| {
                let of_kind = |kind: fn(Memory) -> u64| {
                    median(
                        rounds.iter().filter_map(|round| of(round)).map(|memory| kind(memory) as f64 / MIB),
                    )
                };
                let (rss, pss) = (of_kind(|memory| memory.rss), of_kind(|memory| memory.pss));
                rss.zip(pss).map_or_else(String::new, |(rss, pss)| format!("{rss:.0} / {pss:.0} MiB"))
            };
            let body = workload.request_body().max(workload.response_body()) as f64 / MIB;
            let scale = if workload.is_bulk() { body } else { 1.0 };
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                subject.title,
                shown(median(rounds.iter().filter_map(|round| round.cpu_us())), 1, " µs"),
                shown(self.ratio(subject.key, "nginx", workload, Round::cpu_us), 2, ""),
                shown(median(rounds.iter().map(|round| round.rate() * scale)), 0, ""),
                shown(
                    self.ratio(subject.key, "direct", workload, |round| Some(round.rate() * 100.0))
                        .map(percent),
                    0,
                    " %"
                ),
                shown(median(rounds.iter().map(|round| round.p50_us / 1e3)), 2, " ms"),
                shown(median(rounds.iter().map(|round| round.p99_us / 1e3)), 2, " ms"),
                memory(|round| round.memory_at_rest),
                memory(|round| round.memory_after_load),
            )?;
        }
        Ok(())
    }

    /// What the tables come to, beside what is to be reached.
    fn figures(&self, text: &mut String) -> std::fmt::Result {
        let small = Workload::Small;
        let cpu = |one: &str, other: &str| self.ratio(one, other, small, Round::cpu_us);
        let over = |workload| shown(self.ratio("meshgate-0", "nginx", workload, Round::cpu_us), 2, "");
        let pss = |round: &Round| round.memory_at_rest.map(|memory| memory.pss as f64 / MIB);
        let per_filter = |one: &'static str, five: &'static str| {
            let pairs = self.pairs(five, one, small);
            median(pairs.filter_map(|(five, one)| Some((five.cpu_us()? - one.cpu_us()?) / 4.0)))
        };
        let kept = |subject| {
            let ratio = self.ratio(subject, "direct", small, |round| Some(round.rate()));
            shown(ratio.map(|ratio| ratio * 100.0), 0, " %")
        };
        let at_rest = |subject| shown(median(self.of(subject, small).filter_map(pss)), 1, " MiB");
        let rows = [
            ("CPU, Meshgate without filters / nginx", "≤ 0.9", shown(cpu("meshgate-0", "nginx"), 2, "")),
            ("CPU, Meshgate with 5 filters / nginx", "≤ 1.0", shown(cpu("meshgate-5", "nginx"), 2, "")),
            (
                "CPU, Meshgate with telemetry, authz, fault, retry and routing / nginx",
                "≤ 1.0",
                shown(cpu("meshgate-standard", "nginx"), 2, ""),
            ),
            ("the same without filters, over HTTP/2", "–", over(Workload::Http2)),
            ("the same without filters, through TLS", "–", over(Workload::Tls)),
            ("the same without filters, through mutual TLS on both sides", "–", over(Workload::Mtls)),
            (
                "CPU, Meshgate with 5 filters / Envoy with the same",
                "≤ 0.15",
                shown(cpu("meshgate-5", "envoy-5"), 2, ""),
            ),
            (
                "the same with telemetry, authz, fault, retry and routing",
                "≤ 0.15",
                shown(cpu("meshgate-standard", "envoy-5"), 2, ""),
            ),
            ("one more filter, Meshgate", "≤ 1 µs", shown(per_filter("meshgate-1", "meshgate-5"), 2, " µs")),
            ("one more filter, Envoy", "–", shown(per_filter("envoy-1", "envoy-5"), 2, " µs")),
            (
                "throughput kept of direct, Meshgate with 5 filters / with those",
                "≥ 60 %",
                format!("{} / {}", kept("meshgate-5"), kept("meshgate-standard")),
            ),
            ("the same, two of those with mutual TLS between them", "≥ 35 %", kept("meshgate-pair")),
            (
                "memory at rest (PSS), Meshgate with 5 filters / Envoy",
                "≤ 0.3",
                shown(self.ratio("meshgate-5", "envoy-5", small, pss), 2, ""),
            ),
            (
                "the same with those",
                "≤ 0.3",
                shown(self.ratio("meshgate-standard", "envoy-5", small, pss), 2, ""),
            ),
            (
                "memory at rest (PSS), Meshgate with 5 filters / with those",
                "≤ 25 MiB",
                format!("{} / {}", at_rest("meshgate-5"), at_rest("meshgate-standard")),
            ),
            (
                "share of the load's core in use, highest median",
                "below 95 %",
                shown(self.highest(|round| round.cpu_seconds.map(|_| round.load_busy * 100.0)), 0, " %"),
            ),
            (
                "share of the proxy's core taken by others, highest median",
                "below 3 %",
                shown(self.highest(|round| round.cpu_seconds.map(|_| round.disturbed * 100.0)), 1, " %"),
            ),
        ];
        writeln!(text, "| figure (small bodies) | to reach | measured |\n|---|--:|--:|")?;
        for (name, reach, measured) in rows {
            writeln!(
                text,
                "| {name} | {reach} | {} |",
                if measured.is_empty() { "not measured" } else { &measured }
            )?;
        }
        Ok(())
    }

    fn of<'a>(&'a self, subject: &'a str, workload: Workload) -> impl Iterator<Item = &'a Round> {
        self.rounds.iter().filter(move |round| round.subject == subject && round.workload == workload)
    }

    /// The valid measurements of two subjects that were made in the same round.
    fn pairs<'a>(
        &'a self,
        one: &'a str,
        other: &'a str,
        workload: Workload,
    ) -> impl Iterator<Item = (&'a Round, &'a Round)> {
        self.of(one, workload).filter(|round| round.is_valid()).filter_map(move |round| {
            let mut others = self.of(other, workload).filter(|candidate| candidate.is_valid());
            others.find(|candidate| candidate.round == round.round).map(|found| (round, found))
        })
    }

    fn ratio(
        &self,
        one: &str,
        other: &str,
        workload: Workload,
        of: impl Fn(&Round) -> Option<f64>,
    ) -> Option<f64> {
        median(self.pairs(one, other, workload).filter_map(|(one, other)| Some(of(one)? / of(other)?)))
    }

    /// The highest of all subjects' medians under small bodies, whatever carries them.
    fn highest(&self, of: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
        let mut by_subject: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
        for round in self.rounds.iter().filter(|round| !round.workload.is_bulk()) {
            by_subject.entry((round.subject, round.workload.title())).or_default().extend(of(round));
        }
        by_subject.into_values().filter_map(|values| median(values.into_iter())).max_by(f64::total_cmp)
    }
}

fn percent(ratio: f64) -> f64 {
    ratio * 100.0
}

/// The median; None of nothing.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        Some(upper)
    } else {
        values.get(middle - 1).map(|lower| f64::midpoint(*lower, upper))
    }
}

fn shown(value: Option<f64>, decimals: usize, unit: &str) -> String {
    value.map_or_else(String::new, |value| format!("{value:.decimals$}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(round: usize, subject: &'static str, cpu_seconds: f64) -> Round {
        Round {
            round,
            subject,
            workload: Workload::Small,
            responses: 1_000_000,
            seconds: 1.0,
            cpu_seconds: Some(cpu_seconds),
            p50_us: 1.0,
            p99_us: 2.0,
            memory_at_rest: None,
            memory_after_load: None,
            load_busy: 0.5,
            disturbed: 0.0,
            errors: BTreeMap::new(),
        }
    }

    fn report(rounds: Vec<Round>) -> Report {
        Report {
            date: String::new(),
            machine: Machine::default(),
            command: String::new(),
            cores: Cores { proxy: 0, load: 1 },
            connections: 1,
            seconds: 1.0,
            versions: BTreeMap::new(),
            missing: BTreeMap::new(),
            broken: false,
            rounds,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is ten times slower in the second round, and the third lacks the yardstick.
        let report = report(vec![
            round(1, "nginx", 10.0),
            round(1, "meshgate-0", 8.0),
            round(2, "nginx", 100.0),
            round(2, "meshgate-0", 80.0),
            round(3, "meshgate-0", 1.0),
        ]);
        let ratio = report.ratio("meshgate-0", "nginx", Workload::Small, Round::cpu_us).unwrap();
        assert!((ratio - 0.8).abs() < 1e-9, "{ratio}");
    }

    #[test]
    fn a_round_with_errors_is_no_part_of_a_ratio_and_marks_its_row() {
        let mut bad = round(1, "meshgate-0", 8.0);
        bad.errors.insert("status 503".into(), 1);
        let report = report(vec![round(1, "nginx", 10.0), bad]);
        assert_eq!(report.ratio("meshgate-0", "nginx", Workload::Small, Round::cpu_us), None);
        let text = report.markdown(&crate::subjects::all());
        assert!(text.contains("invalid: 1 × status 503"), "{text}");
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }
}
