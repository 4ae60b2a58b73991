//! The standard filter `telemetry`: counts requests and measures how long they take. See its README.md.

use std::cell::RefCell;

use meshgate_sdk::config::Empty;
use meshgate_sdk::metric::{Counter, Histogram};
use meshgate_sdk::{ConfigError, Exchange, Filter, Refused, filter};

/// Upper bounds of the buckets, in seconds: from what a proxy adds up to what people wait for.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Default)]
struct Telemetry {
    /// The series that were seen, sorted by key: looking one up allocates nothing.
    series: RefCell<Vec<(Key, Series)>>,
}

/// What tells series apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    route: String,
    cluster: String,
    code: u16,
}

/// The series of one key; `None` if the host refused to define them.
type Series = Option<(Counter, Histogram)>;

#[filter]
impl Filter for Telemetry {
    fn configure(_: Empty) -> Result<Self, ConfigError> {
        Ok(Self::default())
    }

    fn on_log(&self, exchange: &Exchange<Self>) {
        let key = Key {
            route: exchange.route_name().unwrap_or_default(),
            cluster: exchange.cluster_name().unwrap_or_default(),
            // 0, as in access logs: the client went away before there was a response.
            code: exchange.response_code().unwrap_or(0),
        };
        let Some((requests, durations)) = self.series(key) else { return };
        requests.add(1);
        if let Some(duration) = exchange.duration() {
            durations.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        }
    }
}

impl Telemetry {
    fn series(&self, key: Key) -> Series {
        let mut all = self.series.borrow_mut();
        match all.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(position) => all.get(position).and_then(|(_, series)| *series),
            Err(position) => {
                let series = define(&key).inspect_err(|refused| meshgate_sdk::warn!("{refused}")).ok();
                // What was refused once is remembered too: otherwise every such request would ask and log again.
                all.insert(position, (key, series));
                series
            }
        }
    }
}

fn define(key: &Key) -> Result<(Counter, Histogram), Refused> {
    let code = key.code.to_string();
    let requests = Counter::build("meshgate_http_requests_total")
        .help("Requests that have ended, by route, cluster and response code.")
        .label("route", &key.route)
        .label("cluster", &key.cluster)
        .label("code", &code);
    let durations = Histogram::build("meshgate_http_request_duration_seconds")
        .help("Time from a request's first byte to its response's last, in seconds.")
        .label("route", &key.route)
        .label("cluster", &key.cluster)
        .label("code", &code)
        .scale(1e-6)
        .buckets(&BUCKETS);
    Ok((requests.define()?, durations.define()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(route: &str, code: u16) -> Key {
        Key { route: route.to_owned(), cluster: "c".to_owned(), code }
    }

    #[test]
    fn each_key_is_kept_once_and_in_order() {
        let telemetry = Telemetry::default();
        for (route, code) in [("b", 200), ("a", 503), ("a", 200), ("b", 200), ("a", 503)] {
            assert!(telemetry.series(key(route, code)).is_some());
        }
        let kept: Vec<_> =
            telemetry.series.borrow().iter().map(|(key, _)| (key.route.clone(), key.code)).collect();
        assert_eq!(kept, [("a".to_owned(), 200), ("a".to_owned(), 503), ("b".to_owned(), 200)]);
    }
}
