//! The admin API as tests read it: metrics by name and labels, the result of the last reload.

use serde_json::Value;

use crate::deadline::until;
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
        Reload::read(&reply.json())
    }

    /// Waits until a reload succeeded that gave another version than `before`.
    pub async fn reloaded(&self, before: &Reload) -> Reload {
        let changed = |reload: &Reload| reload.errors.is_none() && reload.version != before.version;
        self.reload_until("the files are loaded", changed).await
    }

    /// Waits until a reload is refused, and tells why.
    pub async fn refused(&self) -> String {
        let reload = self.reload_until("the files are refused", |reload| reload.errors.is_some()).await;
        reload.errors.expect("just seen")
    }

    /// Polls `/reload` until what it says is `wanted`.
    pub async fn reload_until(&self, what: &str, wanted: impl Fn(&Reload) -> bool) -> Reload {
        until(what, || async { Some(self.reload().await).filter(|reload| wanted(reload)) }).await
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

/// One reading of `/reload`: what the last attempt came to.
#[derive(Clone, Debug)]
pub struct Reload {
    /// Why it failed, as text; `None` if it did not.
    pub errors: Option<String>,
    /// The version that runs, whatever came of the attempt.
    pub version: String,
    /// How many attempts there were, the load at the start included.
    pub attempts: u64,
}

impl Reload {
    fn read(page: &Value) -> Reload {
        let reload = Reload {
            errors: page["errors"].as_str().map(str::to_owned),
            version: page["version"].as_str().expect("a version").to_owned(),
            attempts: page["attempts"].as_u64().expect("a count"),
        };
        assert_eq!(page["result"], if reload.errors.is_none() { "ok" } else { "failed" });
        reload
    }
}
