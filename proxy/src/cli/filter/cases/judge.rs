//! What differs between what was expected and what came.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::HeaderMap;

use super::form::{Calls, ExpectedRequest, ExpectedResponse, Several};
use super::message::{self, ProtoMessage};
use super::servers::Message;

/// Longest part of a body that is shown, in characters.
const SHOWN: usize = 200;

/// Differences, in words, each beginning with where it is.
#[derive(Debug, Default)]
pub(super) struct Differences(pub(super) Vec<String>);

impl Differences {
    pub(super) fn response(&mut self, expected: &ExpectedResponse, came: &Message) {
        if let Some(status) = expected.status {
            self.equal("response status", &status, &came.status);
        }
        self.fields("response", &expected.headers, &came.headers);
        self.body("response", expected.body.as_deref(), expected.body_contains.as_deref(), &came.body);
    }

    pub(super) fn calls(&mut self, server: &str, expected: &Calls, came: &[Message]) {
        let expected = expected.requests();
        if expected.len() != came.len() {
            let shown: Vec<_> =
                came.iter().map(|message| format!("{} {}", message.method, message.path)).collect();
            let shown = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
            self.0.push(format!(
                "{server}: {} requests were expected, {} came: {shown}",
                expected.len(),
                came.len()
            ));
            return;
        }
        let alone = came.len() == 1;
        for (at, (expected, came)) in expected.iter().zip(came).enumerate() {
            let place = if alone { server.to_owned() } else { format!("{server}, request {}", at + 1) };
            self.request(&place, expected, came);
        }
    }

    fn request(&mut self, place: &str, expected: &ExpectedRequest, came: &Message) {
        if let Some(method) = &expected.method {
            self.equal(&format!("{place}: method"), method, &came.method);
        }
        if let Some(path) = &expected.path {
            self.equal(&format!("{place}: path"), path, &came.path);
        }
        self.fields(place, &expected.headers, &came.headers);
        self.body(place, expected.body.as_deref(), expected.body_contains.as_deref(), &came.body);
        if let Some(messages) = &expected.messages {
            self.messages(place, messages, &came.messages.borrow());
        }
    }

    /// A message that cannot be encoded was told when the case began.
    fn messages(&mut self, place: &str, expected: &[ProtoMessage], came: &[Bytes]) {
        let expected: Vec<_> = expected.iter().map(|message| message.encoded().unwrap_or_default()).collect();
        if expected != came {
            let list = |messages: Vec<String>| {
                if messages.is_empty() { "none".to_owned() } else { messages.join(", ") }
            };
            let expected = list(expected.iter().map(|message| message::shown(message)).collect());
            let came = list(came.iter().map(|message| message::shown(message)).collect());
            self.0.push(format!("{place}: the messages {expected} were expected, {came} came"));
        }
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, expected: &T, came: &T) {
        if expected != came {
            self.0.push(format!("{what}: {expected:?} was expected, {came:?} came"));
        }
    }

    fn fields(&mut self, place: &str, expected: &BTreeMap<String, Option<Several>>, came: &HeaderMap) {
        for (name, expected) in expected {
            let values: Vec<_> = came
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect();
            let expected = expected.as_ref().map(Several::values).unwrap_or_default();
            if values != expected {
                let shown = |values: &[String]| {
                    if values.is_empty() { "none".to_owned() } else { format!("{values:?}") }
                };
                self.0.push(format!(
                    "{place}: field {name}: {} was expected, {} came",
                    shown(expected),
                    shown(&values)
                ));
            }
        }
    }

    fn body(&mut self, place: &str, whole: Option<&str>, part: Option<&str>, came: &Bytes) {
        let came = String::from_utf8_lossy(came);
        if let Some(whole) = whole.filter(|whole| came != **whole) {
            self.0.push(format!("{place}: body {} was expected, {} came", shown(whole), shown(&came)));
        }
        if let Some(part) = part.filter(|part| !came.contains(part)) {
            self.0.push(format!("{place}: the body should contain {}: {} came", shown(part), shown(&came)));
        }
    }

    pub(super) fn log(&mut self, expected: &[String], log: &[String]) {
        for part in expected {
            if !log.iter().any(|line| line.contains(part)) {
                self.0.push(format!("log: no line contains {part:?}"));
            }
        }
    }
}

fn shown(body: &str) -> String {
    let part: String = body.chars().take(SHOWN).collect();
    let more = if part.len() < body.len() { format!("… ({} bytes)", body.len()) } else { String::new() };
    format!("{part:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: &[(&'static str, &'static str)], body: &'static str) -> Message {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        Message {
            method: "GET".into(),
            path: "/a".into(),
            status: 200,
            headers,
            body: Bytes::from_static(body.as_bytes()),
            ..Message::default()
        }
    }

    fn differences(expected: serde_json::Value, came: &[Message]) -> Vec<String> {
        let mut differences = Differences::default();
        differences.calls("upstream", &serde_json::from_value(expected).unwrap(), came);
        differences.0
    }

    #[test]
    fn what_is_not_said_is_not_looked_at() {
        assert!(differences(serde_json::json!({}), &[message(&[("x", "y")], "abc")]).is_empty());
    }

    #[test]
    fn every_difference_is_told() {
        let expected = serde_json::json!({
            "method": "POST", "path": "/b", "headers": {"x": ["1", "2"], "gone": null, "there": "1"}, "body": "abd", "body_contains": "z",
        });
        let found = differences(expected, &[message(&[("x", "1"), ("gone", "no"), ("there", "1")], "abc")]);
        for part in [
            "method: \"POST\"",
            "path: \"/b\"",
            "field x:",
            "field gone: none",
            "body \"abd\"",
            "contain \"z\"",
        ] {
            assert!(found.iter().any(|line| line.contains(part)), "{part}: {found:#?}");
        }
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn messages_are_compared_byte_by_byte() {
        let came = message(&[], "");
        came.messages.borrow_mut().push(Bytes::from_static(b"\x0a\x01a"));
        assert!(
            differences(serde_json::json!({"messages": [{"1": "a"}]}), std::slice::from_ref(&came))
                .is_empty()
        );
        let found = differences(serde_json::json!({"messages": [{"1": "b"}, "x"]}), &[came]);
        assert_eq!(found, [r#"upstream: the messages {1: "b"}, "x" were expected, {1: "a"} came"#]);
    }

    #[test]
    fn the_number_of_requests_counts() {
        assert!(differences(serde_json::json!("none"), &[]).is_empty());
        assert_eq!(differences(serde_json::json!("none"), &[message(&[], "")]).len(), 1);
        assert_eq!(differences(serde_json::json!([{}, {}]), &[message(&[], "")]).len(), 1);
        let found =
            differences(serde_json::json!([{}, {"path": "/b"}]), &[message(&[], ""), message(&[], "")]);
        assert_eq!(found, ["upstream, request 2: path: \"/b\" was expected, \"/a\" came"]);
    }
}
