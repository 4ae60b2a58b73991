//! Which SPIFFE IDs are accepted. The specification's rules: a certificate has one URI among its names, and that is the
//! ID; two of them are none.

/// A list of accepted IDs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identities(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// This ID and no other.
    Exact(Box<str>),
    /// All that begin like this; it ends with a slash.
    Below(Box<str>),
}

impl Identities {
    /// From the forms that the configuration has: an ID, the beginning of one with `/*`, or a trust domain.
    pub(super) fn new(patterns: &[String]) -> Identities {
        let pattern = |text: &String| match text.strip_suffix('*') {
            Some(beginning) => Pattern::Below(beginning.into()),
            None if text.matches('/').count() == 2 => Pattern::Below(format!("{text}/").into()),
            None => Pattern::Exact(text.as_str().into()),
        };
        Identities(patterns.iter().map(pattern).collect())
    }

    /// Whether all are accepted.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a certificate with these URIs is accepted. An empty list accepts all.
    pub(super) fn accept(&self, uris: &[String]) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let [id] = uris else { return false };
        id.starts_with("spiffe://")
            && self.0.iter().any(|pattern| match pattern {
                Pattern::Exact(known) => **known == **id,
                // The beginning alone, with nothing after its slash, is not an ID.
                Pattern::Below(beginning) => id.len() > beginning.len() && id.starts_with(&**beginning),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_accepted_by_exact_text_by_path_and_by_trust_domain() {
        let patterns = ["spiffe://a.org/ns/shop/sa/web", "spiffe://a.org/ns/ops/*", "spiffe://b.org"];
        let identities = Identities::new(&patterns.map(str::to_owned));
        for (id, accepted) in [
            ("spiffe://a.org/ns/shop/sa/web", true),
            ("spiffe://a.org/ns/shop/sa/web2", false),
            ("spiffe://a.org/ns/shop/sa", false),
            ("spiffe://a.org/ns/ops/sa/x", true),
            ("spiffe://a.org/ns/ops/", false),
            ("spiffe://a.org/ns/ops", false),
            ("spiffe://a.org/ns/opsy/sa/x", false),
            ("spiffe://b.org/anything", true),
            ("spiffe://b.org", false),
            ("spiffe://b.org.evil/anything", false),
            ("https://b.org/anything", false),
        ] {
            assert_eq!(identities.accept(&[id.to_owned()]), accepted, "{id}");
        }
        let two = ["spiffe://b.org/x".to_owned(), "spiffe://b.org/y".to_owned()];
        assert!(!identities.accept(&two) && !identities.accept(&[]));
        assert!(Identities::default().accept(&two));
    }
}
