//! `meshgate.attempts` and `meshgate.retry`: the filter that is asked when a try of the request has ended, and what it
//! answers. The exchange asks; it has the tries.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use meshgate_abi::{Attempt, Attempts, event};
use meshgate_wasm::{Callbacks, Limit, Status};
use prost::Message;

use super::failure::Stop;
use super::stream::Stream;

/// Bytes of a request's body that are kept to be sent again, unless the filter says otherwise.
const REPLAY: usize = 64 << 10;
/// The longest time that makes a difference.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// A filter that judges the tries of an exchange, and what it wants of them.
#[derive(Clone, Debug)]
pub struct Judge {
    place: u32,
    /// How long a try may take, to the head of its response.
    pub per_try_timeout: Option<Duration>,
    /// The most bytes of the request's body that are kept.
    pub replay: usize,
    /// Responses with a lower status need no judgement.
    pub from_status: u32,
    /// When the filter is asked about a try that is still under way.
    pub hedge_after: Option<Duration>,
    /// Whether endpoints are told the number of the try.
    pub numbered: bool,
}

/// The filter wants another try.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Not before this time has passed.
    pub delay: Duration,
    /// At an endpoint that has not had the request, if there is one.
    pub elsewhere: bool,
    /// If there are no more retries under way than this, with it.
    pub most: Option<usize>,
}

/// What an exchange's filters said about its tries.
#[derive(Default)]
pub(super) struct Judging {
    judge: RefCell<Option<Rc<Judge>>>,
    /// The place of the filter that is being asked.
    asked: Cell<Option<u32>>,
    answer: Cell<Option<Retry>>,
}

impl Stream {
    /// The filter that judges the tries, if one does.
    pub fn judge(&self) -> Option<Rc<Judge>> {
        self.judging.judge.borrow().clone()
    }

    /// From now on the filter at this place is asked.
    pub(super) fn watch_attempts(&self, place: u32, argument: &[u8]) -> Result<(), Status> {
        let wanted = Attempts::decode(argument).map_err(|_| Status::BadArgument)?;
        // It keeps no more for being replayed than for any other purpose.
        let most = self.filter(place).ok_or(Status::BadArgument)?.body_limit;
        let replay = wanted.replay_bytes.map_or(REPLAY, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        self.judging.judge.replace(Some(Rc::new(Judge {
            place,
            per_try_timeout: (wanted.per_try_timeout_ms > 0).then(|| time(wanted.per_try_timeout_ms)),
            replay: replay.min(most),
            from_status: wanted.from_status,
            hedge_after: (wanted.hedge_after_ms > 0).then(|| time(wanted.hedge_after_ms)),
            numbered: wanted.numbered,
        })));
        Ok(())
    }

    /// The filter at this place answers.
    pub(super) fn answer_attempt(&self, place: u32, argument: &[u8]) -> Result<(), Status> {
        if self.judging.asked.get() != Some(place) {
            return Err(Status::BadArgument);
        }
        let retry = meshgate_abi::Retry::decode(argument).map_err(|_| Status::BadArgument)?;
        let filter = self.filter(place).ok_or(Status::BadArgument)?;
        if time(retry.delay_ms) > filter.pause {
            // Not sooner either: the endpoint may have asked for that time.
            filter.plugin.exceeded(Limit::Pause);
            return Err(Status::BadArgument);
        }
        self.judging.answer.set(Some(Retry {
            delay: time(retry.delay_ms),
            elsewhere: retry.elsewhere,
            most: retry.most_retries.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
        }));
        Ok(())
    }

    /// Asks the filter about a try. `None`: what there is is delivered.
    ///
    /// # Errors
    /// The filter ended the exchange: it failed, or answered by itself.
    pub fn ask(self: &Rc<Self>, judge: &Judge, attempt: &Attempt) -> Result<Option<Retry>, Stop> {
        let Some(run) = self.run(judge.place as usize) else { return Ok(None) };
        let argument = attempt.encode_to_vec();
        self.judging.answer.set(None);
        self.judging.asked.set(Some(judge.place));
        let asked = run.call(self, Callbacks::FOREIGN_FUNCTION, |context| {
            context.on_foreign_function(event::ATTEMPT, argument.into())
        });
        self.judging.asked.set(None);
        asked.map(|_| self.judging.answer.take())
    }
}

fn time(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds).min(LONGEST)
}
