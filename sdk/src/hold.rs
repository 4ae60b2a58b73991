//! A place among a bounded number, for as long as an exchange lasts. Used through `Exchange`.

use meshgate_abi::KvAdd;

use crate::error::Refused;
use crate::exchange::Exchange;
use crate::filter::Filter;
use crate::kv;
use crate::shared::SharedCounter;

/// A place that the host does not take back by itself. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Held {
    places: SharedCounter,
    /// Behind a pointer, so that a module whose filter holds nothing does not have what this takes.
    give_back: fn(&SharedCounter),
}

impl Drop for Held {
    fn drop(&mut self) {
        (self.give_back)(&self.places);
    }
}

fn give_back(places: &SharedCounter) {
    if let Err(refused) = places.add(-1) {
        crate::warn!("{refused}");
    }
}

impl<F: Filter> Exchange<F> {
    /// Takes one of `most` places that this counter counts, for as long as the exchange lasts: how many are taken now, or `None`
    /// if there was none left. However many workers do it at once, there are never more.
    ///
    /// When the exchange is over, however it ends, the place is free again. In Meshgate that is so even if the filter's VM dies
    /// meanwhile; on other hosts the place is lost then.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # use meshgate_sdk::SharedCounter;
    /// # struct Door { inside: SharedCounter }
    /// # #[filter]
    /// # impl Filter for Door {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self { inside: SharedCounter::new("inside") }) }
    /// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
    ///     if exchange.hold(&self.inside, 100)?.is_none() {
    ///         return Reply::new(503).header("retry-after", "1").details("full").into();
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// The host has no room to count, or it is not called in a callback of the exchange.
    pub fn hold(&self, places: &SharedCounter, most: i64) -> Result<Option<i64>, Refused> {
        let one = KvAdd { amount: 1, most: Some(most), hold: true, ..KvAdd::default() };
        if let Some(answer) = kv::add(places.key(), one) {
            let refused =
                |status| Refused::new(format!("cannot hold one of the shared data {}", places.key()), status);
            let answer = answer.map_err(refused)?;
            return Ok(answer.done.then_some(answer.number));
        }
        let taken = places.add_within(1, most)?;
        if taken.is_some() {
            self.held.borrow_mut().push(Held { places: places.clone(), give_back });
        }
        Ok(taken)
    }
}
