//! What a request asks for by its headers, where that is allowed.

use std::time::Duration;

use meshgate_sdk::config::{self, Percent};
use meshgate_sdk::{Headers, Refused};

use crate::config::{Abort, ByHeader};

const DELAY: &str = "x-fault-delay";
const DELAY_PERCENT: &str = "x-fault-delay-percent";
const ABORT: &str = "x-fault-abort";
const ABORT_PERCENT: &str = "x-fault-abort-percent";
const RATE: &str = "x-fault-rate";
const RATE_PERCENT: &str = "x-fault-rate-percent";

/// What a request asks for: in the place of what is configured, as far as it says so. What makes no sense is not there.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) delay: Option<(Percent, Duration)>,
    pub(crate) abort: Option<(Percent, Abort)>,
    /// In bytes per second, none of which is 0.
    pub(crate) rate: Option<(Percent, u64)>,
}

impl Asked {
    /// Takes the fields out of the request: nobody behind is to be asked once more.
    pub(crate) fn take(headers: Headers, allowed: &ByHeader) -> Result<Self, Refused> {
        let mut asked = Self::default();
        if let Some(text) = headers.get(DELAY) {
            let longest = allowed.max_delay.as_std();
            let delay = config::Duration::parse(&text).map(|delay| delay.as_std().min(longest));
            asked.delay = share(headers, DELAY_PERCENT).zip(delay);
            headers.remove(DELAY)?;
            headers.remove(DELAY_PERCENT)?;
        }
        if let Some(text) = headers.get(ABORT) {
            asked.abort = share(headers, ABORT_PERCENT).zip(Abort::named(&text));
            headers.remove(ABORT)?;
            headers.remove(ABORT_PERCENT)?;
        }
        if let Some(text) = headers.get(RATE) {
            let rate = text.parse().ok().filter(|rate| *rate > 0);
            asked.rate = share(headers, RATE_PERCENT).zip(rate);
            headers.remove(RATE)?;
            headers.remove(RATE_PERCENT)?;
        }
        Ok(asked)
    }
}

/// The share that a field says; always, if there is none.
fn share(headers: Headers, name: &str) -> Option<Percent> {
    match headers.get(name) {
        Some(text) => Percent::new(text.parse().ok()?),
        None => Some(Percent::ALWAYS),
    }
}
