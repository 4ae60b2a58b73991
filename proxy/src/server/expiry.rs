//! Warns of certificates that end soon: in the log, once for each that comes within one of the times that the
//! configuration gives, and once when it is over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::admin::{self, CertificateSummary};
use crate::telemetry::timestamp::rfc3339;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(60);

/// Looks after the certificates of whatever snapshot runs, for ever.
pub(super) async fn watch(state: Arc<admin::State>) {
    let mut told = Told::default();
    let mut look = tokio::time::interval(PERIOD);
    loop {
        look.tick().await;
        if let Some(snapshot) = state.snapshot() {
            told.look(&snapshot.certificates, &snapshot.expiry_warnings, SystemTime::now());
        }
    }
}

/// How far each certificate was warned of: by its hash, the shortest time that was told.
#[derive(Default)]
struct Told(HashMap<String, Duration>);

impl Told {
    fn look(&mut self, certificates: &[CertificateSummary], warnings: &[Duration], now: SystemTime) {
        self.0.retain(|known, _| certificates.iter().any(|one| one.held.facts.sha256 == *known));
        for certificate in certificates {
            let facts = &certificate.held.facts;
            let left = facts.not_after.duration_since(now).unwrap_or_default();
            let Some(stage) = stage(left, warnings) else { continue };
            if self.0.get(&facts.sha256).is_some_and(|told| *told <= stage) {
                continue;
            }
            self.0.insert(facts.sha256.clone(), stage);
            let (file, used_by) = (certificate.held.file.display(), certificate.used_by.join(", "));
            let not_after = rfc3339(facts.not_after);
            if stage.is_zero() {
                tracing::error!(%file, used_by, subject = facts.subject, not_after, "certificate has expired");
            } else {
                let days = left.as_secs() / (24 * 3600);
                tracing::warn!(%file, used_by, subject = facts.subject, not_after, days, "certificate expires soon");
            }
        }
    }
}

/// The shortest of the times that what is left is within; zero if nothing is left.
fn stage(left: Duration, warnings: &[Duration]) -> Option<Duration> {
    if left.is_zero() {
        return Some(Duration::ZERO);
    }
    warnings.iter().copied().filter(|warning| left <= *warning).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_told_once() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let warnings = [hours(720), hours(168)];
        for (left, expected) in [
            (hours(721), None),
            (hours(720), Some(hours(720))),
            (hours(169), Some(hours(720))),
            (hours(168), Some(hours(168))),
            (Duration::from_secs(1), Some(hours(168))),
            (Duration::ZERO, Some(Duration::ZERO)),
        ] {
            assert_eq!(stage(left, &warnings), expected, "{left:?}");
        }
        assert_eq!(stage(hours(1), &[]), None);
        assert_eq!(stage(Duration::ZERO, &[]), Some(Duration::ZERO));
    }
}
