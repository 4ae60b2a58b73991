//! The path to a position in JSON text. Used for errors in configuration.
//!
//! serde knows the line and column where it gave up, not the field. Tracking the path while reading costs every filter
//! tens of kilobytes of code; finding it afterwards costs this file.

/// The keys and indexes, with `/` between them, of the value that ends or contains the byte at `column` of `line`
/// (both counted from 1, as serde_json does).
pub(crate) fn at(json: &[u8], line: usize, column: usize) -> String {
    let before: usize =
        json.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let end = before.saturating_add(column).min(json.len());
    let mut scan = Scan { levels: Vec::new(), is_key: false };
    let mut position = 0;
    while position < end {
        let Some(byte) = json.get(position) else { break };
        position += 1;
        match byte {
            b'"' => {
                let text = &json[position..];
                let length = string_length(text);
                scan.string(&text[..length]);
                position += length + 1;
            }
            // serde_json reports a missing key when it has seen the closing bracket.
            b'}' | b']' if position == end => {}
            byte => scan.punctuation(*byte),
        }
    }
    scan.path()
}

/// Bytes up to the closing quote (or the end of the text).
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    text.iter()
        .position(|byte| {
            let closes = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            closes
        })
        .unwrap_or(text.len())
}

enum Level {
    Map { key: Option<String> },
    List { index: usize },
}

struct Scan {
    levels: Vec<Level>,
    is_key: bool,
}

impl Scan {
    fn string(&mut self, text: &[u8]) {
        if let Some(Level::Map { key }) = self.levels.last_mut()
            && self.is_key
        {
            *key = Some(String::from_utf8_lossy(text).into_owned());
            self.is_key = false;
        }
    }

    fn punctuation(&mut self, byte: u8) {
        match byte {
            b'{' => {
                self.levels.push(Level::Map { key: None });
                self.is_key = true;
            }
            b'[' => self.levels.push(Level::List { index: 0 }),
            b'}' | b']' => {
                self.levels.pop();
                self.is_key = false;
                // The value that ended stays the current one until the comma, as numbers and strings do.
            }
            b',' => match self.levels.last_mut() {
                Some(Level::Map { key }) => {
                    *key = None;
                    self.is_key = true;
                }
                Some(Level::List { index }) => *index += 1,
                None => {}
            },
            _ => {}
        }
    }

    fn path(self) -> String {
        let names = self.levels.into_iter().filter_map(|level| match level {
            Level::Map { key } => key,
            Level::List { index } => Some(index.to_string()),
        });
        names.collect::<Vec<_>>().join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The path to the end of `marker`.
    fn path(json: &str, marker: &str) -> String {
        let end = json.find(marker).unwrap() + marker.len();
        let line = json[..end].matches('\n').count() + 1;
        let column = end - json[..end].rfind('\n').map_or(0, |at| at + 1);
        at(json.as_bytes(), line, column)
    }

    #[test]
    fn paths_name_keys_and_indexes() {
        let json = r#"{"a": [1, {"b": "x,]}\"{", "c": 22}, 33], "d": {"e": 44}, "f": {}}"#;
        assert_eq!(path(json, "[1"), "a/0");
        assert_eq!(path(json, "x,]"), "a/1/b");
        assert_eq!(path(json, "22"), "a/1/c");
        assert_eq!(path(json, "33"), "a/2");
        assert_eq!(path(json, "44"), "d/e");
        assert_eq!(path(json, "{}"), "f");
    }

    #[test]
    fn lines_count() {
        assert_eq!(path("{\n  \"a\": {\n    \"b\": 1\n  }\n}", "1"), "a/b");
    }

    #[test]
    fn any_text_has_a_path() {
        for text in ["", "}", "]]", "\"", "{\"", "{\"\\", ",", "[,,"] {
            at(text.as_bytes(), 1, 1000);
            at(text.as_bytes(), 1000, 1);
            at(text.as_bytes(), 0, 0);
        }
    }
}
