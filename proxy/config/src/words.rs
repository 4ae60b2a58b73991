//! Wording: names in messages, and the nearest known name for one that is not known.

use std::fmt::Write as _;

/// Longest name or value shown in a message, in characters.
const LONGEST: usize = 60;

/// Most known names that one is compared with.
const MOST_KNOWN: usize = 2000;

/// A name or value as messages show it: in backquotes, cut if very long.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// `a`, `b` and `c`; with the given last word, "and" or "or".
pub(crate) fn list<S: AsRef<str>>(names: &[S], last: &str) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        if index > 0 && index + 1 == names.len() {
            let _ = write!(text, " {last} ");
        } else if index > 0 {
            text.push_str(", ");
        }
        text.push_str(name.as_ref());
    }
    text
}

/// The known name that somebody who wrote `word` most likely meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length > LONGEST {
        return None;
    }
    let word = plain(word);
    let mut best: Option<(usize, &str)> = None;
    for name in known.into_iter().take(MOST_KNOWN) {
        let other = name.chars().count();
        let most = (length.max(other) / 3).clamp(1, 4);
        if length.abs_diff(other) > most {
            continue;
        }
        let distance = strsim::damerau_levenshtein(&word, &plain(name));
        // One edit in a name of two letters makes any other name of two letters.
        let near = distance == 0 || (distance <= most && length > 2);
        if near && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// "did you mean …?" if a known name is near, else the known names if they are few.
pub(crate) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(name) = nearest(word, known.iter().copied()) {
        return Some(format!("did you mean {}?", quoted(name)));
    }
    if known.is_empty() || known.len() > 12 {
        return None;
    }
    let names: Vec<String> = known.into_iter().map(quoted).collect();
    Some(format!("known: {}", list(&names, "and")))
}

/// Case and the choice of separator are no difference worth counting.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["address", "chain", "header_timeout", "idle_timeout"];
        assert_eq!(nearest("adress", known), Some("address"));
        assert_eq!(nearest("header-timeout", known), Some("header_timeout"));
        assert_eq!(nearest("Chain", known), Some("chain"));
        assert_eq!(nearest("cahin", known), Some("chain"));
        assert_eq!(nearest("upstream", known), None);
        assert_eq!(nearest("x", known), None);
        assert_eq!(nearest("ab", ["cd", "ac"]), None);
        assert_eq!(nearest("", ["a"]), None);
        assert_eq!(nearest(&"a".repeat(100_000), ["a"]), None);
    }

    #[test]
    fn lists_read_like_sentences() {
        assert_eq!(list(&["a"], "and"), "a");
        assert_eq!(list(&["a", "b"], "or"), "a or b");
        assert_eq!(list(&["a", "b", "c"], "and"), "a, b and c");
        assert_eq!(list::<&str>(&[], "and"), "");
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(quoted(&"ä".repeat(61)).chars().count(), 60 + 3);
        assert_eq!(quoted("x"), "`x`");
    }
}
