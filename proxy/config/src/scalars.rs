//! What a plain (unquoted) scalar means: the core schema of YAML 1.2, and an error where readers of YAML are known to
//! disagree.

use serde_json::Number;

use crate::tree::Kind;

/// A plain scalar that we refuse: what is wrong and how to mend it.
pub(crate) struct Refused {
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// The value of a plain scalar. `yes`, `no`, `on` and `off` are strings.
pub(crate) fn plain(text: &str) -> Result<Kind, Refused> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Kind::Null),
        "true" | "True" | "TRUE" => return Ok(Kind::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Kind::Bool(false)),
        _ => {}
    }
    let quote = || format!("quote it if it is a string: `\"{text}\"`");
    match number(text) {
        Written::Text => Ok(Kind::Text(text.to_owned())),
        Written::Number(number) => Ok(Kind::Number(number, text.to_owned())),
        Written::LeadingZero => Err(Refused {
            message: format!(
                "`{text}` is a number with a leading zero, which readers of YAML understand differently"
            ),
            hint: quote(),
        }),
        Written::OutOfRange => {
            Err(Refused { message: format!("the number `{text}` is out of range"), hint: quote() })
        }
    }
}

enum Written {
    Text,
    Number(Number),
    LeadingZero,
    OutOfRange,
}

fn number(text: &str) -> Written {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Written::OutOfRange;
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return based(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return based(digits, 8);
    }
    if !looks_decimal(unsigned) {
        return Written::Text;
    }
    if unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.as_bytes()[1].is_ascii_digit() {
        return Written::LeadingZero;
    }
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        let text = text.strip_prefix('+').unwrap_or(text);
        let whole = text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from));
        return whole.map_or(Written::OutOfRange, Written::Number);
    }
    let float = text.parse::<f64>().ok().and_then(Number::from_f64);
    float.map_or(Written::OutOfRange, Written::Number)
}

fn based(digits: &str, radix: u32) -> Written {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Written::Text;
    }
    u64::from_str_radix(digits, radix).map_or(Written::OutOfRange, |value| Written::Number(value.into()))
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn looks_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_digits = !whole.is_empty() || !fraction.is_empty();
    has_digits
        && digits(whole)
        && digits(fraction)
        && exponent.is_none_or(|part| !part.is_empty() && digits(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match plain(text) {
            Ok(Kind::Null) => "null".to_owned(),
            Ok(Kind::Bool(value)) => format!("bool {value}"),
            Ok(Kind::Number(number, _)) => format!("number {number}"),
            Ok(Kind::Text(text)) => format!("text {text}"),
            Ok(_) => "?".to_owned(),
            Err(refused) => format!("refused: {}", refused.message),
        }
    }

    #[test]
    fn the_core_schema_of_yaml_1_2() {
        for text in ["", "~", "null"] {
            assert_eq!(shown(text), "null");
        }
        assert_eq!(shown("true"), "bool true");
        for text in [
            "yes", "no", "on", "off", "y", "n", "1:30", "10ms", "1.2.3", "-", ".", "+", "e5", "1e", "0x",
            "0xg", "::1", "1_000",
        ] {
            assert_eq!(shown(text), format!("text {text}"));
        }
        let numbers = [
            ("0", "0"),
            ("-7", "-7"),
            ("+7", "7"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("1.5", "1.5"),
            (".5", "0.5"),
            ("5.", "5.0"),
            ("1e3", "1000.0"),
            ("0.5", "0.5"),
            ("18446744073709551615", "18446744073709551615"),
        ];
        for (text, value) in numbers {
            assert_eq!(shown(text), format!("number {value}"));
        }
    }

    #[test]
    fn what_readers_disagree_about_is_refused() {
        for text in [
            "007",
            "-01",
            "00.5",
            ".inf",
            "-.INF",
            ".nan",
            "99999999999999999999",
            "1e999",
            "0xFFFFFFFFFFFFFFFFF",
        ] {
            assert!(shown(text).starts_with("refused"), "{text}: {}", shown(text));
        }
    }
}
