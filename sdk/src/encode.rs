//! How a response's body goes to the client: its coding, its speed. Used through `Exchange`.

use meshgate_abi::{Encode, Throttle, function};
use prost::Message;

use crate::error::Refused;
use crate::exchange::Exchange;
use crate::filter::Filter;
use crate::host;

impl<F: Filter> Exchange<F> {
    /// Has the response's body compressed on its way to the client, in [`on_response`](Filter::on_response): by `gzip`, which
    /// is the one coding there is, with a level from 1 to 9, or 0 for the usual one. Filters see it as it was. The host sets
    /// `content-encoding`, takes `content-length` and checksums out, and weakens the `etag`; whether the client takes it, and
    /// what caches are to know, is the filter's to see to.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # struct Pack;
    /// # #[filter]
    /// # impl Filter for Pack {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
    ///     exchange.response().headers().add("vary", "accept-encoding")?;
    ///     if exchange.request().header("accept-encoding").is_some_and(|codings| codings.contains("gzip")) {
    ///         exchange.encode_response("gzip", 0)?;
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// `BAD_ARGUMENT`: no such coding or level, or not in a callback of the response's head. `INTERNAL_FAILURE`: as many are under
    /// way as there may be (`limits.encodings`). `NOT_FOUND`: the host is not Meshgate.
    pub fn encode_response(&self, coding: &str, level: u8) -> Result<(), Refused> {
        let encode = Encode { coding: coding.to_owned(), level: level.into() };
        match host::call_foreign_function(function::ENCODE, &encode.encode_to_vec()) {
            Ok(_) => Ok(()),
            Err(status) => Err(Refused::new(format!("cannot encode the response by {coding}"), status)),
        }
    }

    /// Lets the response's body go to the client at this speed and no faster; 0 takes it back.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # struct Slow;
    /// # #[filter]
    /// # impl Filter for Slow {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
    ///     if exchange.response().header("content-type").is_some_and(|kind| kind.starts_with("video/")) {
    ///         exchange.throttle_response(256 << 10)?;
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Proxy, Request, Response};
    /// # let mut proxy = Proxy::new::<Slow>("");
    /// # proxy.endpoint(|_| Response::new(200).header("content-type", "video/mp4"));
    /// # assert_eq!(proxy.send(Request::get("/")).throttle(), 256 << 10);
    /// # }
    /// ```
    ///
    /// # Errors
    /// `BAD_ARGUMENT`: the response is on its way already. `NOT_FOUND`: the host is not Meshgate.
    pub fn throttle_response(&self, bytes_per_second: u64) -> Result<(), Refused> {
        match host::call_foreign_function(function::THROTTLE, &Throttle { bytes_per_second }.encode_to_vec())
        {
            Ok(_) => Ok(()),
            Err(status) => Err(Refused::new("cannot slow the response down", status)),
        }
    }
}
