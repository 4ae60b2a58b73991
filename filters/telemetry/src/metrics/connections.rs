//! Counts TCP connections: from time to time while they are open, and at their end.

use meshgate_sdk::{ConfigError, property};

use super::tcp::{self, Side};
use super::{Handles, Measure, Recorder, microseconds};
use crate::config::Config;
use crate::seen::Seen;

/// What is counted of each connection.
pub(crate) struct Connections {
    sides: Vec<(Recorder, bool)>,
}

/// What was counted of a connection until now.
pub(crate) struct Told {
    /// Where it counts, of each side that it has.
    handles: Vec<Option<Handles>>,
    received: u64,
    sent: u64,
}

impl Connections {
    /// What the configuration says.
    ///
    /// # Errors
    /// It makes no sense, or the host refuses to define metrics.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, ConfigError> {
        let sides = tcp::sides(config)?.into_iter();
        let sides = sides.map(|Side { plan, of_endpoint }| Ok((Recorder::of(plan, config)?, of_endpoint)));
        let sides = sides.collect::<Result<Vec<_>, ConfigError>>()?;
        Ok((!sides.is_empty()).then_some(Self { sides }))
    }

    /// Counts what passed since the last time. A connection begins to count when it is known where it goes: what is told of
    /// it stays what it is.
    pub(crate) fn tell(&self, seen: &Seen<'_>, told: &mut Option<Told>) {
        if told.is_some() || has_endpoint() {
            self.pass(seen, told.get_or_insert_with(|| self.begin(seen)));
        }
    }

    /// Counts the end of a connection.
    pub(crate) fn end(&self, seen: &Seen<'_>, told: &mut Option<Told>) {
        let told = told.get_or_insert_with(|| self.begin(seen));
        self.pass(seen, told);
        for ((recorder, _), handles) in self.sides.iter().zip(&told.handles) {
            let Some(handles) = handles else { continue };
            recorder.move_gauges(handles, -1);
            // With the response flags of the end.
            recorder.each(&recorder.handles(seen), |measure| match measure {
                Measure::Closed => Some(1),
                Measure::Duration => seen.duration().map(microseconds),
                _ => None,
            });
        }
    }

    fn begin(&self, seen: &Seen<'_>) -> Told {
        let with_endpoint = has_endpoint();
        let begin = |(recorder, of_endpoint): &(Recorder, bool)| {
            (with_endpoint || !of_endpoint).then(|| {
                let handles = recorder.handles(seen);
                recorder.each(&handles, |measure| (measure == Measure::Opened).then_some(1));
                recorder.move_gauges(&handles, 1);
                handles
            })
        };
        Told { handles: self.sides.iter().map(begin).collect(), received: 0, sent: 0 }
    }

    fn pass(&self, seen: &Seen<'_>, told: &mut Told) {
        let (received, sent) = (seen.received().unwrap_or(0), seen.sent().unwrap_or(0));
        let more = (received.saturating_sub(told.received), sent.saturating_sub(told.sent));
        for ((recorder, _), handles) in self.sides.iter().zip(&told.handles) {
            let Some(handles) = handles else { continue };
            recorder.each(handles, |measure| match measure {
                Measure::Received => Some(more.0),
                Measure::Sent => Some(more.1),
                _ => None,
            });
        }
        (told.received, told.sent) = (received, sent);
    }
}

fn has_endpoint() -> bool {
    property::bytes("upstream/address").is_some()
}
