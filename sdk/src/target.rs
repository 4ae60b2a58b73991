//! A request's path and query. Used through `Request`.

use std::borrow::Cow;

/// A request's path and query, as the client wrote them.
///
/// ```
/// use meshgate_sdk::Target;
///
/// let target = Target::from("/search?q=caf%C3%A9+au+lait&page=2");
/// assert_eq!(target.path(), "/search");
/// assert_eq!(target.query(), Some("q=caf%C3%A9+au+lait&page=2"));
/// assert_eq!(target.parameter("q").as_deref(), Some("café au lait"));
/// assert_eq!(target.parameter("size"), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target(String);

impl Target {
    /// The whole of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the first `?`, as written (percent-encoded).
    pub fn path(&self) -> &str {
        self.0.split_once('?').map_or(self.as_str(), |(path, _)| path)
    }

    /// What stands after the first `?`, if there is one.
    pub fn query(&self) -> Option<&str> {
        self.0.split_once('?').map(|(_, query)| query)
    }

    /// The value of the query's first parameter of this name, decoded. A parameter without `=` has the empty value.
    pub fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        self.raw_parameters().find(|(known, _)| decode(known) == name).map(|(_, value)| decode(value))
    }

    /// The names and values of all parameters of the query in order, decoded.
    ///
    /// ```
    /// use meshgate_sdk::Target;
    ///
    /// let target = Target::from("/?tag=a&tag=b%26c&x");
    /// let all: Vec<_> = target.parameters().collect();
    /// assert_eq!(all, [("tag".into(), "a".into()), ("tag".into(), "b&c".into()), ("x".into(), "".into())]);
    /// ```
    pub fn parameters(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.raw_parameters().map(|(name, value)| (decode(name), decode(value)))
    }

    /// The value of the query's first parameter of this name, both as written (percent-encoded).
    ///
    /// ```
    /// use meshgate_sdk::Target;
    ///
    /// let target = Target::from("/login?next=%2Fhome");
    /// assert_eq!(target.raw_parameter("next"), Some("%2Fhome"));
    /// ```
    pub fn raw_parameter(&self, name: &str) -> Option<&str> {
        self.raw_parameters().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn raw_parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let parameters =
            self.query().unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty());
        parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
    }
}

impl From<&str> for Target {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Target {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Resolves `+` and `%xx` as forms write them. What is not well-formed is left as it stands; bytes that are not UTF-8
/// become `U+FFFD`.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'+' || byte == b'%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped =
            if *first == b'%' { after.first_chunk::<2>().and_then(|digits| hex(*digits)) } else { None };
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
        bytes.push(escaped.unwrap_or(if *first == b'+' { b' ' } else { *first }));
    }
    Cow::Owned(crate::headers::text(bytes))
}

fn hex([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_split_at_the_first_question_mark() {
        let target = Target::from("/a/b?x=1&y&x=2&z=a=b?c");
        assert_eq!(target.path(), "/a/b");
        assert_eq!(target.query(), Some("x=1&y&x=2&z=a=b?c"));
        assert_eq!(target.parameter("x").as_deref(), Some("1"));
        assert_eq!(target.parameter("y").as_deref(), Some(""));
        assert_eq!(target.parameter("z").as_deref(), Some("a=b?c"));
        assert_eq!(target.parameter("w"), None);
        assert_eq!(Target::from("/").query(), None);
        assert_eq!(Target::from("/?").query(), Some(""));
        assert_eq!(Target::from("/?").parameter(""), None);
    }

    #[test]
    fn escapes_are_resolved_where_they_are_well_formed() {
        for (written, meant) in [
            ("a+b", "a b"),
            ("%41%62", "Ab"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%ff", "\u{fffd}"),
            ("%2B", "+"),
            ("", ""),
        ] {
            assert_eq!(decode(written), meant, "{written}");
        }
    }

    #[test]
    fn parameters_are_found_as_written_too() {
        let target = Target::from("/?a%20b=1%262");
        assert_eq!(target.raw_parameter("a%20b"), Some("1%262"));
        assert_eq!(target.raw_parameter("a b"), None);
        assert_eq!(target.parameter("a b").as_deref(), Some("1&2"));
    }
}
