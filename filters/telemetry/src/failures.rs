//! Which responses count as failures.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::format::GRPC_STATUSES;

/// Statuses of HTTP and of gRPC that say that something failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failures {
    codes: Vec<(u16, u16)>,
    /// A bit for each of gRPC's.
    grpc: u32,
}

impl Failures {
    /// Those of gRPC for which the caller is not to blame: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
    const GRPC: u32 = 1 << 2 | 1 << 4 | 1 << 13 | 1 << 14 | 1 << 15;

    /// Whether a response with this status failed.
    pub(crate) fn has(&self, code: u16) -> bool {
        self.codes.iter().any(|(first, last)| (*first..=*last).contains(&code))
    }

    /// Whether a call with this status failed.
    pub(crate) fn has_grpc(&self, status: u32) -> bool {
        status >= 32 || self.grpc & (1 << status) != 0
    }

    fn of<'a>(words: impl Iterator<Item = Cow<'a, str>>) -> Result<Self, String> {
        let (mut codes, mut grpc, mut names) = (Vec::new(), 0, false);
        for word in words {
            if let Some(status) =
                GRPC_STATUSES.iter().position(|(name, _)| name.eq_ignore_ascii_case(&word.replace('-', "_")))
            {
                grpc |= 1 << status;
                names = true;
                continue;
            }
            codes.push(range(&word).ok_or_else(|| {
                format!("`{word}` is not a status: 404, 5xx, 500-503 and unavailable (of gRPC) are some")
            })?);
        }
        // Whoever names none of gRPC's means those of HTTP.
        Ok(Self { codes, grpc: if names { grpc } else { Self::GRPC } })
    }
}

impl Default for Failures {
    fn default() -> Self {
        Self { codes: vec![(500, 599)], grpc: Self::GRPC }
    }
}

fn range(word: &str) -> Option<(u16, u16)> {
    let status =
        |text: &str| text.parse::<u16>().ok().filter(|code| (100..600).contains(code) && text.len() == 3);
    if let Some((first, last)) = word.split_once('-') {
        return status(first).zip(status(last)).filter(|(first, last)| first <= last);
    }
    match word.strip_suffix("xx") {
        Some(class) => status(&format!("{class}00")).map(|first| (first, first + 99)),
        None => status(word).map(|code| (code, code)),
    }
}

impl<'de> Deserialize<'de> for Failures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = Failures;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of statuses")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Failures, A::Error> {
                let mut words = Vec::new();
                while let Some(Word(word)) = list.next_element()? {
                    words.push(word);
                }
                Failures::of(words.into_iter().map(Cow::Owned)).map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_seq(Words)
    }
}

/// A status is a number in YAML, and `5xx` is not.
struct Word(String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 404, 5xx or unavailable")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Word, E> {
                Ok(Word(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Failures {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Failures".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array", "items": {"type": ["string", "integer"]}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Failures, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn statuses_are_numbers_classes_ranges_and_names() {
        let failures = read(r#"["5xx", 404, "420-422"]"#).unwrap();
        for (code, fails) in
            [(500, true), (599, true), (404, true), (421, true), (423, false), (200, false), (0, false)]
        {
            assert_eq!(failures.has(code), fails, "{code}");
        }
        assert!(failures.has_grpc(14) && !failures.has_grpc(5) && !failures.has_grpc(0));
        let named = read(r#"["not-found", "RESOURCE_EXHAUSTED"]"#).unwrap();
        assert!(named.has_grpc(5) && named.has_grpc(8) && !named.has_grpc(14) && !named.has(500));
        assert_eq!(read(r#"["5xx"]"#).unwrap(), Failures::default());
        assert_eq!(read("[]").unwrap().codes, []);
    }

    #[test]
    fn what_is_no_status_is_refused() {
        for wrong in [
            "[99]",
            "[600]",
            r#"["6xx"]"#,
            r#"["xx"]"#,
            r#"["503-500"]"#,
            r#"["05xx"]"#,
            r#"["gone"]"#,
            "[-1]",
            "5",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
