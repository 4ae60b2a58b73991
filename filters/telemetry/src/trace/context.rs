//! The context of a trace as requests carry it: W3C's `traceparent`, and B3 in one field or in several.

/// What a request says of the trace that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    /// The trace, and the span that is the request's parent; none if the request only says whether to record.
    pub(crate) ids: Option<(TraceId, SpanId)>,
    /// Whether it is recorded; none if that is still to be decided.
    pub(crate) sampled: Option<bool>,
}

/// The id of a trace; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceId(u128);

/// The id of a span; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanId(u64);

impl TraceId {
    /// None for 0.
    pub(crate) fn new(bits: u128) -> Option<Self> {
        (bits != 0).then_some(Self(bits))
    }

    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The part that chance decides even where an id begins with a time.
    pub(crate) fn low_bits(self) -> u64 {
        self.0 as u64
    }

    /// 32 digits.
    pub(crate) fn text(self) -> String {
        format!("{:032x}", self.0)
    }

    /// As B3 has it: 16 digits, if these are all.
    fn short(self) -> String {
        if self.0 >> 64 == 0 { format!("{:016x}", self.0) } else { self.text() }
    }
}

impl SpanId {
    /// None for 0.
    pub(crate) fn new(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Self(bits))
    }

    pub(crate) fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// 16 digits.
    pub(crate) fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

/// Reads `traceparent`; what is not valid counts as absent. Versions to come are read as this one.
pub(crate) fn w3c(value: &str) -> Option<Context> {
    let mut parts = value.splitn(5, '-');
    let version = digits::<2>(parts.next()?)?;
    let (trace, span) = (digits::<32>(parts.next()?)?, digits::<16>(parts.next()?)?);
    let flags = digits::<2>(parts.next()?)?;
    if version == 0xff || (version == 0 && parts.next().is_some()) {
        return None;
    }
    let ids = (TraceId::new(trace)?, SpanId::new(u64::try_from(span).ok()?)?);
    Some(Context { ids: Some(ids), sampled: Some(flags & 1 == 1) })
}

/// Writes `traceparent`.
pub(crate) fn to_w3c(trace: TraceId, span: SpanId, sampled: bool) -> String {
    format!("00-{}-{}-{:02x}", trace.text(), span.text(), u8::from(sampled))
}

/// Reads `b3`: `TRACE-SPAN-SAMPLED-PARENT`, of which the last two may be missing, or nothing but `SAMPLED`.
pub(crate) fn b3(value: &str) -> Option<Context> {
    let mut parts = value.split('-');
    let first = parts.next()?;
    let Some(span) = parts.next() else {
        return Some(Context { ids: None, sampled: Some(decision(first)?) });
    };
    let sampled = parts.next().map(|word| decision(word).ok_or(())).transpose().ok()?;
    let is_whole = match parts.next() {
        Some(parent) => digits::<16>(parent).is_some() && parts.next().is_none(),
        None => true,
    };
    let ids = Some(b3_ids(first, span)?);
    is_whole.then_some(Context { ids, sampled })
}

/// Writes `b3`.
pub(crate) fn to_b3(trace: TraceId, span: SpanId, sampled: bool) -> String {
    format!("{}-{}-{}", trace.short(), span.text(), u8::from(sampled))
}

/// Reads what `x-b3-traceid`, `x-b3-spanid`, `x-b3-sampled` and `x-b3-flags` say.
pub(crate) fn b3_multi(
    trace: Option<&str>,
    span: Option<&str>,
    sampled: Option<&str>,
    flags: Option<&str>,
) -> Option<Context> {
    let sampled = match flags {
        Some("1") => Some(true),
        _ => sampled.and_then(decision),
    };
    let ids = trace.zip(span).and_then(|(trace, span)| b3_ids(trace, span));
    (ids.is_some() || sampled.is_some()).then_some(Context { ids, sampled })
}

/// The fields in which B3 goes on, and their values.
pub(crate) fn to_b3_multi(
    trace: TraceId,
    span: SpanId,
    parent: Option<SpanId>,
    sampled: bool,
) -> Vec<(&'static str, String)> {
    let mut fields = vec![("x-b3-traceid", trace.short()), ("x-b3-spanid", span.text())];
    fields.extend(parent.map(|parent| ("x-b3-parentspanid", parent.text())));
    fields.push(("x-b3-sampled", u8::from(sampled).to_string()));
    fields
}

fn b3_ids(trace: &str, span: &str) -> Option<(TraceId, SpanId)> {
    let trace = digits::<32>(trace).or_else(|| digits::<16>(trace))?;
    Some((TraceId::new(trace)?, SpanId::new(u64::try_from(digits::<16>(span)?).ok()?)?))
}

/// `d` means that somebody looks for a mistake; some say `true` and `false`.
fn decision(word: &str) -> Option<bool> {
    match word {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// Exactly so many hexadecimal digits, in lower case.
fn digits<const N: usize>(text: &str) -> Option<u128> {
    let sound =
        text.len() == N && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if sound { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn context(sampled: Option<bool>) -> Option<Context> {
        let ids = (TraceId(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736), SpanId(0x00f0_67aa_0ba9_02b7));
        Some(Context { ids: Some(ids), sampled })
    }

    #[test]
    fn traceparent_is_read_as_the_specification_says() {
        assert_eq!(w3c(&format!("00-{TRACE}-{SPAN}-01")), context(Some(true)));
        assert_eq!(w3c(&format!("00-{TRACE}-{SPAN}-00")), context(Some(false)));
        assert_eq!(
            w3c(&format!("00-{TRACE}-{SPAN}-03")),
            context(Some(true)),
            "other flags mean nothing yet"
        );
        assert_eq!(w3c(&format!("cc-{TRACE}-{SPAN}-01")), context(Some(true)), "versions to come");
        assert_eq!(w3c(&format!("cc-{TRACE}-{SPAN}-01-what-comes")), context(Some(true)));
        for wrong in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-x"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}-{SPAN}g-01"),
            format!("00-{TRACE}-{SPAN}-0x"),
            format!(" 00-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01"),
            format!("00-+{}-{SPAN}-01", &TRACE[1..]),
        ] {
            assert_eq!(w3c(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn b3_is_read_in_one_field() {
        assert_eq!(b3(&format!("{TRACE}-{SPAN}-1-{SPAN}")), context(Some(true)));
        assert_eq!(b3(&format!("{TRACE}-{SPAN}-d")), context(Some(true)));
        assert_eq!(b3(&format!("{TRACE}-{SPAN}-0")), context(Some(false)));
        assert_eq!(b3(&format!("{TRACE}-{SPAN}")), context(None));
        assert_eq!(b3("0"), Some(Context { ids: None, sampled: Some(false) }));
        let short = b3(&format!("{SPAN}-{SPAN}-1")).unwrap().ids.unwrap();
        assert_eq!(short.0, TraceId(0x00f0_67aa_0ba9_02b7));
        assert_eq!(to_b3(short.0, short.1, true), format!("{SPAN}-{SPAN}-1"));
        for wrong in [
            "",
            "2",
            "-",
            &format!("{TRACE}-{SPAN}-x"),
            &format!("{TRACE}-{SPAN}-1-"),
            &format!("{TRACE}-{SPAN}-1-{SPAN}-"),
            &format!("{TRACE}-{TRACE}-1"),
            &format!("{}-{SPAN}-1", "0".repeat(16)),
        ] {
            assert_eq!(b3(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn b3_is_read_in_several_fields() {
        assert_eq!(b3_multi(Some(TRACE), Some(SPAN), Some("1"), None), context(Some(true)));
        assert_eq!(b3_multi(Some(TRACE), Some(SPAN), Some("false"), None), context(Some(false)));
        assert_eq!(b3_multi(Some(TRACE), Some(SPAN), None, None), context(None));
        assert_eq!(b3_multi(Some(TRACE), Some(SPAN), None, Some("1")), context(Some(true)));
        assert_eq!(b3_multi(None, None, Some("0"), None), Some(Context { ids: None, sampled: Some(false) }));
        assert_eq!(b3_multi(None, Some(SPAN), None, None), None);
        assert_eq!(b3_multi(Some("x"), Some(SPAN), None, None), None);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (trace, span) = context(None).unwrap().ids.unwrap();
        for sampled in [true, false] {
            assert_eq!(w3c(&to_w3c(trace, span, sampled)), context(Some(sampled)));
            assert_eq!(b3(&to_b3(trace, span, sampled)), context(Some(sampled)));
        }
        let fields = to_b3_multi(trace, span, Some(span), true);
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled"]);
        assert_eq!(fields[0].1, TRACE);
    }
}
