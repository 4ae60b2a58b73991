//! Trace context of requests that nobody asked for: copies for mirrors, which would be spans without a parent's knowledge.

use http::{HeaderMap, HeaderValue};

/// Where the flags are in `traceparent` (W3C Trace Context, 2.2): `00-<32>-<16>-<2>`, and maybe more after it.
const FLAGS: std::ops::Range<usize> = 53..55;

/// Says in every form of trace context that the request has that it is not sampled. What is no such context stays.
pub fn never_sample(headers: &mut HeaderMap) {
    change(headers, "traceparent", w3c);
    change(headers, "b3", b3);
    change(headers, "x-b3-sampled", |_| Some("0".to_owned()));
    headers.remove("x-b3-flags");
}

fn change(headers: &mut HeaderMap, name: &str, unsampled: impl Fn(&str) -> Option<String>) {
    let Some(value) = headers.get_mut(name) else { return };
    let changed = value.to_str().ok().and_then(unsampled);
    if let Some(changed) = changed.and_then(|text| HeaderValue::try_from(text).ok()) {
        *value = changed;
    }
}

fn w3c(context: &str) -> Option<String> {
    let flags = u8::from_str_radix(context.get(FLAGS)?, 16).ok()?;
    Some(format!("{}{:02x}{}", &context[..FLAGS.start], flags & !1, &context[FLAGS.end..]))
}

/// `<trace>-<span>`, `<trace>-<span>-<sampled>`, `<trace>-<span>-<sampled>-<parent>`, or `<sampled>` alone.
fn b3(context: &str) -> Option<String> {
    let mut parts = context.splitn(4, '-');
    let (trace, span) = (parts.next()?, parts.next());
    let Some(span) = span else { return Some("0".to_owned()) };
    let parent = parts.nth(1).map(|parent| format!("-{parent}")).unwrap_or_default();
    Some(format!("{trace}-{span}-0{parent}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_says_that_it_is_not_sampled() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        for (name, value, changed) in [
            ("traceparent", format!("00-{TRACE}-01"), format!("00-{TRACE}-00")),
            ("traceparent", format!("00-{TRACE}-03"), format!("00-{TRACE}-02")),
            ("traceparent", format!("cc-{TRACE}-01-more"), format!("cc-{TRACE}-00-more")),
            ("traceparent", "00-1-01".to_owned(), "00-1-01".to_owned()),
            ("traceparent", format!("00-{TRACE}-zz"), format!("00-{TRACE}-zz")),
            ("b3", format!("{TRACE}-1"), format!("{TRACE}-0")),
            ("b3", format!("{TRACE}-d-05e3ac9a4f6e3b90"), format!("{TRACE}-0-05e3ac9a4f6e3b90")),
            ("b3", TRACE.to_owned(), format!("{TRACE}-0")),
            ("b3", "1".to_owned(), "0".to_owned()),
            ("x-b3-sampled", "1".to_owned(), "0".to_owned()),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::try_from(value).unwrap());
            headers.insert("x-b3-flags", HeaderValue::from_static("1"));
            never_sample(&mut headers);
            assert_eq!((headers.len(), headers[name].to_str().unwrap()), (1, changed.as_str()));
        }
        let mut none = HeaderMap::new();
        never_sample(&mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn a_context_of_any_bytes_does_no_harm() {
        for value in [&b"\xff"[..], "00-é".as_bytes(), "é".repeat(40).as_bytes(), b"----", b""] {
            for name in ["traceparent", "b3"] {
                let mut headers = HeaderMap::new();
                headers.insert(name, HeaderValue::from_bytes(value).unwrap());
                never_sample(&mut headers);
            }
        }
    }
}
