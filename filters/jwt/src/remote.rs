//! Keys that a cluster is asked for. One worker asks, and all of them get what it learned by shared data.

use std::time::Duration;

use meshgate_sdk::{CallError, Cluster, ConfigError, Refused, SharedMap};
use serde::{Deserialize, Serialize};

use crate::config::KeysConfig;
use crate::keys::KeySet;

/// Milliseconds before a token with an unknown key makes the cluster be asked again: such tokens can be made at will.
const FORCED: u64 = 10_000;
/// Milliseconds until the second try after a failure; each further one takes twice as long.
const RETRY: u64 = 1_000;
/// The longest time until the next try, in milliseconds.
const LONGEST_RETRY: u64 = 60_000;
/// Milliseconds more than a call may take, after which whoever began it is given up.
const GRACE: u64 = 1_000;
/// Bytes of the largest set that is taken.
const LARGEST: usize = 256 << 10;

/// A cluster that knows the keys.
#[derive(Debug)]
pub(crate) struct Remote {
    cluster: Cluster,
    path: String,
    authority: Option<String>,
    pub(crate) timeout: Duration,
    refresh: u64,
    /// The name of what all workers share.
    id: String,
    schedules: SharedMap<Schedule>,
    documents: SharedMap<String>,
}

/// When the cluster was asked, and when it will be. Times are milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Schedule {
    /// When the keys were fetched that all workers have.
    pub(crate) fetched: u64,
    /// When somebody asked last.
    tried: u64,
    /// When to ask next.
    due: u64,
    /// Somebody is asking, until then at most.
    busy: u64,
    failures: u32,
}

impl Schedule {
    pub(crate) fn is_busy(&self) -> bool {
        now() < self.busy
    }

    fn is_due(&self, forced: bool) -> bool {
        let now = now();
        now >= self.busy && (now >= self.due || (forced && now >= self.tried.saturating_add(FORCED)))
    }
}

impl Remote {
    pub(crate) fn new(cluster: &Cluster, config: &KeysConfig) -> Result<Self, ConfigError> {
        let duration = |given: Option<meshgate_sdk::config::Duration>, or: u64| {
            given.map_or(Duration::from_secs(or), Into::into)
        };
        let refresh = duration(config.refresh, 300);
        if refresh < Duration::from_secs(1) {
            return Err(ConfigError::new("keys are asked for once a second at most").at("refresh"));
        }
        let path = config.path.clone().unwrap_or_else(|| "/.well-known/jwks.json".to_owned());
        if !path.starts_with('/') {
            return Err(ConfigError::new("a path begins with /").at("path"));
        }
        let authority = config.authority.clone();
        Ok(Self {
            id: format!("{cluster} {} {path}", authority.as_deref().unwrap_or_default()),
            cluster: cluster.clone(),
            path,
            authority,
            timeout: duration(config.timeout, 3),
            refresh: u64::try_from(refresh.as_millis()).unwrap_or(u64::MAX),
            schedules: SharedMap::new("jwks-schedule"),
            documents: SharedMap::new("jwks"),
        })
    }

    pub(crate) fn schedule(&self) -> Result<Schedule, Refused> {
        Ok(self.schedules.get(&self.id)?.unwrap_or_default())
    }

    /// Whether it is time to ask, and this worker is the one to do it.
    pub(crate) fn claim(&self, forced: bool) -> Result<bool, Refused> {
        if !self.schedule()?.is_due(forced) {
            return Ok(false);
        }
        let mut mine = false;
        self.schedules.update(&self.id, |known| {
            let schedule = known.unwrap_or_default();
            mine = schedule.is_due(forced);
            if !mine {
                return schedule;
            }
            let now = now();
            Schedule {
                busy: now.saturating_add(milliseconds(self.timeout)).saturating_add(GRACE),
                tried: now,
                ..schedule
            }
        })?;
        Ok(mine)
    }

    /// Asks, and tells all workers. The keys that were known stay if there are no new ones.
    pub(crate) async fn fetch(&self) -> Result<(), String> {
        let fetched = self.ask().await;
        let outcome = match fetched {
            Ok(document) => self.documents.set(&self.id, &document).map_err(|refused| refused.to_string()),
            Err(reason) => Err(reason),
        };
        let failed = outcome.is_err();
        let changed = self.schedules.update(&self.id, |known| {
            let (schedule, now) = (known.unwrap_or_default(), now());
            if failed {
                let wait =
                    RETRY.saturating_mul(1 << schedule.failures.min(16)).min(LONGEST_RETRY).min(self.refresh);
                let failures = schedule.failures.saturating_add(1);
                return Schedule { busy: 0, due: now.saturating_add(wait), failures, ..schedule };
            }
            // Always later than what was there, so that everybody notices.
            let fetched = now.max(schedule.fetched + 1);
            Schedule { fetched, busy: 0, due: now.saturating_add(self.refresh), failures: 0, ..schedule }
        });
        outcome.and(changed.map(drop).map_err(|refused| refused.to_string()))
    }

    async fn ask(&self) -> Result<String, String> {
        let mut call =
            self.cluster.get(self.path.as_str()).header("accept", "application/json").timeout(self.timeout);
        if let Some(authority) = &self.authority {
            call = call.authority(authority.as_str());
        }
        let words = |error: CallError| error.to_string();
        let response = call.send().await.map_err(words)?.success().map_err(words)?;
        if response.body().len() > LARGEST {
            return Err(format!("more than {LARGEST} bytes of keys"));
        }
        KeySet::parse(response.body())?;
        Ok(response.text().into_owned())
    }

    /// The keys that somebody has fetched.
    pub(crate) fn keys(&self) -> Option<KeySet> {
        KeySet::parse(self.documents.get(&self.id).ok()??.as_bytes()).ok()
    }
}

fn now() -> u64 {
    meshgate_sdk::now().duration_since(std::time::UNIX_EPOCH).map_or(0, milliseconds)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
