//! Modules that exist in a table only, with manifests like those of real filters.

use std::collections::BTreeMap;

use meshgate_config::{ModuleSource, Modules};
use serde_json::{Value, json};

/// The one SHA-256 that every module in the table has.
pub(crate) const SHA256: &str = "a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3";

/// Answers from the table, and counts how often it was asked for each module.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) asked: BTreeMap<ModuleSource, usize>,
}

impl Modules for Table {
    fn manifest(&mut self, source: &ModuleSource, sha256: Option<&str>) -> Result<Option<Vec<u8>>, String> {
        *self.asked.entry(source.clone()).or_default() += 1;
        if sha256.is_some_and(|pin| pin != SHA256) {
            return Err(format!("{source} has another SHA-256: {SHA256}"));
        }
        let name = match source {
            ModuleSource::Standard(name) => name.clone(),
            ModuleSource::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let schema = match name.as_str() {
            "routing" => routing(),
            "retry" => retry(),
            "telemetry" => json!({"type": "object", "additionalProperties": false}),
            "stamp" => stamp(),
            "forms" => forms(),
            "marks" => marks(),
            "text" => json!({"type": ["string", "null"]}),
            "circular" => json!({"anyOf": [{"$ref": "#"}]}),
            "invalid" => json!({"type": "strnig"}),
            "bare" => return Ok(Some(br#"{"name": "bare", "version": "1.0.0"}"#.to_vec())),
            "garbled" => return Ok(Some(b"{\"name\": \"garbled\", \"schema\": {".to_vec())),
            "raw" => return Ok(None),
            "noabi" => return Err(format!("{source} exports no Proxy-Wasm ABI version")),
            _ => return Err(format!("{source} cannot be read: No such file or directory (os error 2)")),
        };
        let manifest = json!({"name": name, "version": "1.0.0", "sdk": "0.1.0", "callbacks": ["request_headers"], "schema": schema});
        Ok(Some(manifest.to_string().into_bytes()))
    }

    fn standard(&self) -> Vec<String> {
        ["headers", "retry", "routing", "telemetry"].map(str::to_owned).to_vec()
    }
}

/// What schemars makes of a router's types.
fn routing() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration",
        "type": "object",
        "properties": {"routes": {"type": "array", "items": {"$ref": "#/$defs/Route"}}},
        "required": ["routes"],
        "additionalProperties": false,
        "$defs": {
            "Route": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "match": {"anyOf": [{"$ref": "#/$defs/Match"}, {"type": "array", "items": {"$ref": "#/$defs/Match"}}]},
                    "to": {"anyOf": [
                        {"$ref": "#/$defs/Cluster"},
                        {"type": "object", "propertyNames": {"x-meshgate": "cluster"}, "additionalProperties": {"type": "integer", "minimum": 0}, "minProperties": 1}
                    ]},
                    "timeout": {"type": "string", "format": "duration"},
                    "filters": {"type": "array", "items": true, "x-meshgate": "chain"}
                },
                "required": ["match", "to"],
                "additionalProperties": false
            },
            "Match": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "pattern": "^/"},
                    "method": {"enum": ["GET", "POST", "PUT", "DELETE"]},
                    "headers": {"type": "object", "additionalProperties": {"type": "string"}}
                },
                "additionalProperties": false
            },
            "Cluster": {"type": "string", "x-meshgate": "cluster"}
        }
    })
}

fn retry() -> Value {
    json!({
        "type": "object",
        "properties": {
            "attempts": {"type": "integer", "minimum": 1, "maximum": 10, "default": 2},
            "per_try_timeout": {"type": "string", "format": "duration"},
            "if": {"type": "array", "uniqueItems": true, "items": {"oneOf": [
                {"const": "5xx", "type": "string", "description": "Any 5xx."},
                {"const": "connect-failure", "type": "string", "description": "No connection."}
            ]}}
        },
        "additionalProperties": false
    })
}

fn stamp() -> Value {
    json!({
        "type": "object",
        "properties": {"header": {"type": "string", "minLength": 1}, "value": {"type": "string"}, "also": {"type": "boolean"}},
        "required": ["header", "value"],
        "additionalProperties": false
    })
}

/// Values of several forms.
fn forms() -> Value {
    json!({
        "type": "object",
        "properties": {
            "size": {"type": "string", "format": "size"},
            "ratio": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "mode": {"oneOf": [{"const": "fast"}, {"const": "safe"}]},
            "match": {"oneOf": [
                {"type": "string"},
                {"type": "object", "properties": {"exact": {"type": "string"}}, "required": ["exact"], "additionalProperties": false},
                {"type": "object", "properties": {"prefix": {"type": "string"}, "ignore_case": {"type": "boolean"}}, "required": ["prefix"], "additionalProperties": false}
            ]},
            "action": {"oneOf": [
                {"type": "object", "properties": {"kind": {"const": "deny"}, "status": {"type": "integer"}}, "required": ["kind", "status"], "additionalProperties": false},
                {"type": "object", "properties": {"kind": {"const": "delay"}, "for": {"type": "string", "format": "duration"}}, "required": ["kind", "for"], "additionalProperties": false}
            ]},
            "either": {"oneOf": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}]},
            "labels": {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "additionalProperties": {"type": "string"}},
            "few": {"type": "array", "maxItems": 2, "items": {"type": "integer"}},
            "nothing": false
        },
        "additionalProperties": false
    })
}

/// Every way to a mark.
fn marks() -> Value {
    json!({
        "type": "object",
        "properties": {
            "key_file": {"type": "string", "x-meshgate": "file"},
            "words": {"type": "string", "x-meshgate": "file_text"},
            "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"x-meshgate": "cluster"}], "items": {"x-meshgate": "file"}},
            "then": {"allOf": [{"$ref": "#/$defs/Chain"}]},
            "named": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Chain"}},
            "target": {"oneOf": [
                {"type": "object", "properties": {"cluster": {"x-meshgate": "cluster", "type": "string"}}, "required": ["cluster"]},
                {"type": "object", "properties": {"address": {"type": "string"}}, "required": ["address"]}
            ]}
        },
        "patternProperties": {"^to_": {"$ref": "#/$defs/Cluster"}},
        "additionalProperties": false,
        "$defs": {"Cluster": {"type": "string", "x-meshgate": "cluster"}, "Chain": {"type": "array", "x-meshgate": "chain"}}
    })
}
