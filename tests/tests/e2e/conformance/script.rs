//! What the guest `conformance` is told to do, and what it reports.

use std::collections::BTreeMap;

use meshgate_tests::Lines;
use serde_json::{Value, json};

/// The statuses of the ABI.
pub(super) const OK: u32 = 0;
pub(super) const NOT_FOUND: u32 = 1;
pub(super) const BAD_ARGUMENT: u32 = 2;
pub(super) const SERIALIZATION_FAILURE: u32 = 3;
pub(super) const PARSE_FAILURE: u32 = 4;
pub(super) const INVALID_MEMORY: u32 = 6;
pub(super) const EMPTY: u32 = 7;
pub(super) const CAS_MISMATCH: u32 = 8;
pub(super) const INTERNAL_FAILURE: u32 = 10;
pub(super) const UNIMPLEMENTED: u32 = 12;

/// A status by its name.
pub(super) fn name_of(status: u32) -> String {
    match status {
        OK => "OK".to_owned(),
        NOT_FOUND => "NOT_FOUND".to_owned(),
        BAD_ARGUMENT => "BAD_ARGUMENT".to_owned(),
        SERIALIZATION_FAILURE => "SERIALIZATION_FAILURE".to_owned(),
        PARSE_FAILURE => "PARSE_FAILURE".to_owned(),
        INVALID_MEMORY => "INVALID_MEMORY_ACCESS".to_owned(),
        EMPTY => "EMPTY".to_owned(),
        CAS_MISMATCH => "CAS_MISMATCH".to_owned(),
        INTERNAL_FAILURE => "INTERNAL_FAILURE".to_owned(),
        UNIMPLEMENTED => "UNIMPLEMENTED".to_owned(),
        other => other.to_string(),
    }
}

/// An argument of a hostcall.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg {
    /// A number.
    N(i64),
    /// Pointer and length of a text.
    T(&'static str),
    /// Pointer and length of bytes, given as hexadecimal digits.
    Hex(&'static str),
    /// Pointer and length of a Protocol Buffers message, given by its fields.
    Message(&'static [(u8, Field)]),
    /// Pointer and length of a serialized map.
    Pairs(&'static [(&'static str, &'static str)]),
    /// Pointer and length of a list of pointers and lengths.
    Parts(&'static [&'static str]),
    /// A pointer to 4 bytes for the host to write.
    Word,
    /// A pointer to 8 bytes.
    Long,
    /// Pointers to an address and a size.
    Bytes,
    /// As `Word`; the number is kept under this name.
    Save(&'static str),
    /// A number that was kept.
    Saved(&'static str),
    /// The id of the running context, of its root context, of the last stream context created.
    Context,
    Root,
    Stream,
}

/// What a field of a message has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    Text(&'static str),
    /// Bytes, given as hexadecimal digits.
    Hex(&'static str),
    /// One below 128.
    Number(u8),
}

/// A message as hexadecimal digits.
fn message(fields: &[(u8, Field)]) -> String {
    let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let prefixed = |tag: u8, content: String| {
        let length = u8::try_from(content.len() / 2).expect("a short field");
        // Two bytes from 128 on.
        let length = if length < 128 { vec![length] } else { vec![length, 1] };
        digits(&[tag << 3 | 2]) + &digits(&length) + &content
    };
    let field = |(tag, field): &(u8, Field)| match *field {
        Field::Text(text) => prefixed(*tag, digits(text.as_bytes())),
        Field::Hex(digits) => prefixed(*tag, digits.to_owned()),
        Field::Number(number) => digits(&[tag << 3, number]),
    };
    fields.iter().map(field).collect()
}

impl Arg {
    fn json(self) -> Value {
        match self {
            Arg::N(number) => json!(number),
            Arg::T(text) => json!(text),
            Arg::Hex(digits) => json!({"hex": digits}),
            Arg::Message(fields) => json!({"hex": message(fields)}),
            Arg::Pairs(pairs) => json!({"pairs": pairs}),
            Arg::Parts(parts) => json!({"parts": parts}),
            Arg::Word => json!({"out": "word"}),
            Arg::Long => json!({"out": "long"}),
            Arg::Bytes => json!({"out": "bytes"}),
            Arg::Save(name) => json!({"save": name}),
            Arg::Saved(name) => json!({"saved": name}),
            Arg::Context => json!({"id": "context"}),
            Arg::Root => json!({"id": "root"}),
            Arg::Stream => json!({"id": "stream"}),
        }
    }
}

/// One hostcall.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) function: &'static str,
    pub(super) arguments: Vec<Arg>,
}

impl Call {
    /// In a line of a message.
    pub(super) fn shown(&self) -> String {
        let arguments: Vec<_> = self.arguments.iter().map(|argument| argument.json().to_string()).collect();
        format!("{}({})", self.function, arguments.join(", "))
    }

    fn step(&self) -> Value {
        let arguments = self.arguments.iter().map(|argument| argument.json());
        Value::Array([json!(self.function)].into_iter().chain(arguments).collect())
    }
}

/// A hostcall.
pub(super) fn call(function: &'static str, arguments: &[Arg]) -> Call {
    Call { function, arguments: arguments.to_vec() }
}

/// What the guest does: hostcalls and an answer for each callback.
#[derive(Clone, Default)]
pub(super) struct Script {
    steps: BTreeMap<String, Vec<Value>>,
}

impl Script {
    /// Makes these calls in that callback. Callbacks are named as in the guest's documentation.
    pub(super) fn on(mut self, callback: &str, calls: impl IntoIterator<Item = Call>) -> Script {
        self.steps.entry(callback.to_owned()).or_default().extend(calls.into_iter().map(|call| call.step()));
        self
    }

    /// Lets that callback answer this.
    pub(super) fn answer(mut self, callback: &str, number: u32) -> Script {
        self.steps.entry(callback.to_owned()).or_default().push(json!({"return": number}));
        self
    }

    /// The guest's configuration.
    pub(super) fn json(&self) -> String {
        // An object without callbacks would read like no configuration.
        let mut script = json!(self.steps);
        script["none"] = json!([]);
        script.to_string()
    }
}

/// What the guest reports of one callback.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    pub(super) phase: String,
    pub(super) context: u32,
    /// The callback's arguments, but for the context's id.
    pub(super) arguments: Vec<u32>,
    /// For each hostcall the status, then what the host wrote.
    pub(super) results: Vec<Vec<Value>>,
    /// It came while another callback was running.
    pub(super) nested: bool,
}

impl Report {
    /// The statuses of the hostcalls.
    pub(super) fn statuses(&self) -> Vec<u32> {
        (0..self.results.len()).map(|place| self.status(place)).collect()
    }

    /// The status of the hostcall at this place.
    pub(super) fn status(&self, place: usize) -> u32 {
        let status = self.results.get(place).and_then(|result| result.first()).and_then(Value::as_u64);
        status.unwrap_or_else(|| panic!("no hostcall {place}: {self:?}")) as u32
    }

    /// What the host wrote first in the hostcall at this place.
    pub(super) fn value(&self, place: usize) -> &Value {
        let value = self.results.get(place).and_then(|result| result.get(1));
        value.unwrap_or_else(|| panic!("no value of hostcall {place}: {self:?}"))
    }

    /// The callback and its arguments, in short.
    pub(super) fn shown(&self) -> String {
        let arguments: Vec<_> = self.arguments.iter().map(ToString::to_string).collect();
        format!("{}({})", self.phase, arguments.join(", "))
    }
}

/// The reports in these lines of a proxy's log, in order.
pub(super) fn reports(lines: &[String]) -> Vec<Report> {
    let mut reports: Vec<Report> = Vec::new();
    for line in lines {
        let Some(report) = part(line) else { continue };
        let from = report["from"].as_u64().unwrap_or_default() as usize;
        let results = report["results"].as_array().cloned().unwrap_or_default();
        let results = results.into_iter().map(|result| match result {
            Value::Array(result) => result,
            other => panic!("the guest does not understand a step: {other} in {line}"),
        });
        let phase = report["phase"].as_str().unwrap_or_default();
        let context = report["context"].as_u64().unwrap_or_default() as u32;
        // A host with several threads may put another VM's lines between two of this one.
        let begun = reports.iter_mut().rev().find(|begun| {
            from > 0 && begun.results.len() == from && begun.phase == phase && begun.context == context
        });
        match begun {
            Some(begun) => begun.results.extend(results),
            None => reports.push(Report {
                phase: phase.to_owned(),
                context,
                arguments: serde_json::from_value(report["arguments"].clone()).unwrap_or_default(),
                results: results.collect(),
                nested: report["nested"] == true,
            }),
        }
    }
    reports
}

/// The last report of this callback that is whole: one may still be on its way to the log.
pub(super) fn fullest<'a>(reports: &'a [Report], callback: &str) -> Option<&'a Report> {
    let made = reports.iter().filter(|report| report.phase == callback && !report.results.is_empty());
    made.max_by_key(|report| report.results.len())
}

/// The object in a line that the guest logged; a host may put something before and behind it.
fn part(line: &str) -> Option<Value> {
    let (_, rest) = line.split_once("conformance {")?;
    let rest = &line[line.len() - rest.len() - 1..];
    serde_json::Deserializer::from_str(rest).into_iter().next()?.ok()
}

/// Waits until the guest has reported `count` times that it entered this callback.
pub(super) async fn entered(log: &Lines, callback: &str, count: usize) -> Vec<Report> {
    let what = format!("callback {callback}, {count} times");
    meshgate_tests::until(what, || async {
        let found: Vec<_> =
            reports(&log.all()).into_iter().filter(|report| report.phase == callback).collect();
        (found.len() >= count).then_some(found)
    })
    .await
}
