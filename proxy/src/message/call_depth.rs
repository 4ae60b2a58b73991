//! The guard against filters' calls that lead back to this process and make calls again, and so on: a field that says how
//! many calls stand in a row. Only this process's own field counts, so that no client can say that its request is deep.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

const FIELD: HeaderName = HeaderName::from_static("x-meshgate-call-depth");

/// Whether the process ever made a call: until then no request can be one.
static CALLED: AtomicBool = AtomicBool::new(false);

/// What only this process knows, in hex.
static SECRET: LazyLock<String> = LazyLock::new(|| {
    let half = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    format!("{:016x}{:016x}", half(), half())
});

/// Marks the request of a call.
pub fn mark(headers: &mut HeaderMap, depth: u32) {
    CALLED.store(true, Ordering::Relaxed);
    match HeaderValue::try_from(format!("{}-{depth}", *SECRET)) {
        Ok(mut value) => {
            value.set_sensitive(true);
            headers.insert(FIELD, value);
        }
        // Hex digits and a number always are a field's value.
        Err(_) => {
            headers.remove(FIELD);
        }
    }
}

/// Takes the mark off a request that arrived: how many calls led to it.
pub fn take(headers: &mut HeaderMap) -> u32 {
    if !CALLED.load(Ordering::Relaxed) {
        return 0;
    }
    let Some(value) = headers.remove(FIELD) else { return 0 };
    let depth = value.to_str().ok().and_then(|text| text.strip_prefix(SECRET.as_str())?.strip_prefix('-'));
    depth.and_then(|depth| depth.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_mark_counts() {
        let mut headers = HeaderMap::new();
        mark(&mut headers, 3);
        assert_eq!(take(&mut headers), 3);
        assert_eq!(take(&mut headers), 0, "it is gone");
        for forged in ["9", "-9", "0123456789abcdef0123456789abcdef-9"] {
            headers.insert(FIELD, HeaderValue::from_static(forged));
            assert_eq!(take(&mut headers), 0, "{forged}");
            assert!(headers.is_empty(), "and not passed on");
        }
    }
}
