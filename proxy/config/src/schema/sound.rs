//! Whether a schema that comes with a module is one that we can work with: its references stay within it and lead
//! somewhere, and it cannot send the validator in circles. Schemas come from modules, and modules from anybody.

use std::collections::HashMap;

use serde_json::Value;

use super::marks::Mark;
use super::walk::{Applies, parts, resolve};
use crate::words::quoted;

/// Longest way through schemas that all apply to the same value. The validator recurses along it.
const LONGEST_WAY: usize = 48;

/// Most ways of that kind from one schema. The validator may walk each of them for each value.
const MOST_WAYS: usize = 10_000;

/// Most subschemas.
const MOST_PARTS: usize = 20_000;

/// Checks a schema.
///
/// # Errors
/// Why it cannot be used, as the end of a sentence about the schema.
pub(crate) fn check(root: &Value) -> Result<(), String> {
    if let Some(dialect) = root.get("$schema").and_then(Value::as_str)
        && !dialect.contains("json-schema.org/draft/2020-12/")
    {
        return Err(format!("is written for {}, not for draft 2020-12", quoted(dialect)));
    }
    let mut check = Check { root, ways: HashMap::new(), parts: 0 };
    check.part(root, true)
}

struct Check<'s> {
    root: &'s Value,
    /// The ways from a schema on; `None` while they are being walked. By address: the schema does not move.
    ways: HashMap<*const Value, Option<Ways>>,
    parts: usize,
}

/// Ways from a schema to others that apply to the same value.
#[derive(Clone, Copy)]
struct Ways {
    longest: usize,
    number: usize,
}

impl<'s> Check<'s> {
    fn part(&mut self, schema: &'s Value, is_root: bool) -> Result<(), String> {
        self.parts += 1;
        if self.parts > MOST_PARTS {
            return Err(format!("has more than {MOST_PARTS} parts"));
        }
        keywords(schema, is_root)?;
        self.ways(schema, 0)?;
        for (applies, part) in parts(schema) {
            if matches!(applies, Applies::Names) {
                self.names(part)?;
            }
            self.part(part, false)?;
        }
        Ok(())
    }

    /// The ways from here through schemas for the same value.
    fn ways(&mut self, schema: &'s Value, walked: usize) -> Result<Ways, String> {
        let too_long =
            || format!("has more than {LONGEST_WAY} references and alternatives within each other");
        match self.ways.get(&std::ptr::from_ref(schema)) {
            Some(Some(ways)) if walked + ways.longest <= LONGEST_WAY => return Ok(*ways),
            Some(Some(_)) => return Err(too_long()),
            Some(None) => return Err("refers to itself without end".to_owned()),
            None if walked > LONGEST_WAY => return Err(too_long()),
            None => {}
        }
        self.ways.insert(std::ptr::from_ref(schema), None);
        let same = parts(schema).into_iter().filter(|(applies, _)| applies.to_same_value());
        let mut next: Vec<&'s Value> = same.map(|(_, part)| part).collect();
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            next.push(resolve(self.root, reference).ok_or_else(|| {
                format!(
                    "has the reference {}, which leads nowhere (only `#/…` is followed)",
                    quoted(reference)
                )
            })?);
        }
        let mut ways = Ways { longest: 0, number: 1 };
        for part in next {
            let on = self.ways(part, walked + 1)?;
            ways.longest = ways.longest.max(on.longest + 1);
            ways.number = ways.number.saturating_add(on.number);
        }
        if ways.number > MOST_WAYS {
            return Err(format!("has more than {MOST_WAYS} combinations of alternatives for one value"));
        }
        self.ways.insert(std::ptr::from_ref(schema), Some(ways));
        Ok(ways)
    }

    /// Keys can name clusters, but hold neither chains nor files.
    fn names(&self, schema: &Value) -> Result<(), String> {
        let of_names = |schema: &Value| Mark::of(schema).is_some_and(|mark| mark != Mark::Cluster);
        if of_names(schema) || super::walk::target(self.root, schema).is_some_and(of_names) {
            return Err("marks keys with something else than `x-meshgate: cluster`".to_owned());
        }
        Ok(())
    }
}

/// Refuses what the walks would misunderstand.
fn keywords(schema: &Value, is_root: bool) -> Result<(), String> {
    for keyword in ["$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor"] {
        if schema.get(keyword).is_some() {
            return Err(format!("uses `{keyword}`, which is not supported: refer to `#/$defs/…`"));
        }
    }
    if !is_root && schema.get("$id").is_some() {
        return Err("uses `$id` inside, which is not supported".to_owned());
    }
    match schema.get(Mark::KEYWORD) {
        Some(mark) if Mark::of(schema).is_none() => Err(format!(
            "has the unknown mark {}; known are `cluster`, `chain`, `file` and `file_text`",
            quoted(&mark.to_string())
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn recursive_data_is_fine_recursive_checks_are_not() {
        let tree = json!({"$defs": {"t": {"type": "object", "properties": {"sub": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"});
        assert_eq!(check(&tree), Ok(()));
        for circle in [
            json!({"$ref": "#"}),
            json!({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}),
            json!({"$defs": {"unused": {"$ref": "#/$defs/unused"}}}),
        ] {
            assert_eq!(check(&circle), Err("refers to itself without end".to_owned()), "{circle}");
        }
    }

    #[test]
    fn long_ways_are_refused_however_they_are_met() {
        let mut defs = serde_json::Map::new();
        for n in 0..200 {
            defs.insert(format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)}));
        }
        defs.insert("d200".to_owned(), json!(true));
        let error = check(&json!({"$defs": defs, "$ref": "#/$defs/d0"})).expect_err("too long");
        assert!(error.contains("within each other"), "{error}");
    }

    #[test]
    fn alternatives_that_multiply_are_refused() {
        let mut defs = serde_json::Map::new();
        for n in 0..20 {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            defs.insert(format!("d{n}"), json!({"anyOf": [next, next]}));
        }
        defs.insert("d20".to_owned(), json!({"type": "string"}));
        let error = check(&json!({"$defs": defs, "$ref": "#/$defs/d0"})).expect_err("too many");
        assert!(error.contains("combinations"), "{error}");
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        let refused = [
            (json!({"$ref": "other.json"}), "leads nowhere"),
            (json!({"$ref": "#/$defs/none"}), "leads nowhere"),
            (json!({"properties": {"x": {"$dynamicRef": "#x"}}}), "$dynamicRef"),
            (json!({"properties": {"x": {"$id": "y"}}}), "$id"),
            (json!({"x-meshgate": "clutser"}), "unknown mark"),
            (json!({"propertyNames": {"x-meshgate": "chain"}}), "marks keys"),
            (json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "draft 2020-12"),
        ];
        for (schema, complaint) in refused {
            let error = check(&schema).expect_err(complaint);
            assert!(error.contains(complaint), "{schema}: {error}");
        }
        // Names of properties are not keywords.
        assert_eq!(check(&json!({"properties": {"$id": true, "$anchor": true, "x-meshgate": true}})), Ok(()));
    }
}
