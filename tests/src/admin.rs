//! The admin API as tests read it: metrics by name and labels, the result of the last reload.

use serde_json::Value;

use crate::meshgate::Meshgate;

/// One reading of `/metrics`.
pub struct Metrics {
    text: String,
}

impl Meshgate {
    /// Reads `/metrics` now.
    pub async fn metrics(&self) -> Metrics {
        let reply = self.admin("/metrics").await;
        assert_eq!(reply.status, 200);
        Metrics { text: reply.text() }
    }

    /// Reads `/reload` now.
    pub async fn reload(&self) -> Reload {
        let reply = self.admin("/reload").await;
        assert_eq!(reply.status, 200);
        Reload { json: reply.json() }
    }
}

impl Metrics {
    /// The sum of all samples of `name` whose labels include these. 0 when there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name)
            .filter(|(of, _)| labels.iter().all(|label| of.contains(&format_label(*label))))
            .map(|(_, value)| value)
            .sum()
    }

    /// The text as it came.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The labels (as text between braces) and value of every sample of `name`.
    fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.text.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.split(' ').next()?.parse().ok()?))
        })
    }
}

fn format_label((name, value): (&str, &str)) -> String {
    format!("{name}=\"{value}\"")
}

/// One reading of `/reload`.
#[derive(Debug)]
pub struct Reload {
    /// The whole answer.
    pub json: Value,
}
