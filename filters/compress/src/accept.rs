//! What a client takes: `accept-encoding` (RFC 9110, section 12.5.3).

use meshgate_sdk::Pairs;

/// Whether gzip is what to send: the client takes it, and likes nothing that we could send instead better.
pub(crate) fn takes_gzip(fields: &Pairs) -> bool {
    let lines = fields.all("accept-encoding").map(String::from_utf8_lossy);
    decides(lines.collect::<Vec<_>>().iter().map(|line| &**line))
}

fn decides<'a>(lines: impl Iterator<Item = &'a str>) -> bool {
    let (mut gzip, mut identity, mut others) = (None, None, None);
    for member in lines.flat_map(|line| line.split(',')) {
        let mut parts = member.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let weight = parts.find_map(weight).unwrap_or(Some(1_000));
        // What is no weight is no preference.
        let Some(weight) = weight else { continue };
        match coding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(weight),
            "identity" => identity = Some(weight),
            "*" => others = Some(weight),
            _ => {}
        }
    }
    let gzip = gzip.or(others).unwrap_or(0);
    gzip > 0 && identity.is_none_or(|identity| gzip >= identity)
}

/// The weight in thousandths, if that is what the parameter is; `Some(None)` if it is a wrong one.
fn weight(parameter: &str) -> Option<Option<u16>> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let value: Option<f32> = value.trim().parse().ok();
    let value = value.filter(|value| (0.0..=1.0).contains(value));
    Some(value.map(|value| (value * 1_000.0) as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_say_what_they_take() {
        for taken in [
            "gzip",
            "GZIP",
            "x-gzip",
            "br, gzip",
            "deflate;q=1.0, gzip;q=0.001",
            "*",
            "br;q=1, *;q=0.1",
            "gzip ; q=0.5 , identity;q=0.5",
            "identity;q=0, gzip",
            "gzip;x=y",
        ] {
            assert!(decides([taken].into_iter()), "{taken}");
        }
        for not in [
            "",
            "identity",
            "br",
            "gzip;q=0",
            "gzip;q=0.000",
            "*;q=0",
            "gzip;q=0, *",
            "gzip;q=0.4, identity;q=0.5",
            "*;q=0.1, identity",
            "gzip;q=2",
            "gzip;q=much",
            "gzip2",
        ] {
            assert!(!decides([not].into_iter()), "{not}");
        }
        assert!(decides(["br", "gzip"].into_iter()) && !decides([].into_iter()));
    }
}
