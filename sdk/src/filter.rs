//! The trait that a filter implements.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::config::ConfigError;
use crate::error::{Flow, Outcome};
use crate::exchange::Exchange;
use crate::message::Body;

/// A filter: what it needs to be configured, and what it does with an exchange.
///
/// One value of the type serves all exchanges of a worker, one callback at a time; what belongs to one exchange is in its
/// [`State`](Self::State). Put [`#[filter]`](macro@crate::filter) before the `impl`; it fills in what is left out here
/// without a default: `Config` (none), `State` (none) and `CALLBACKS`.
///
/// In every callback, `?` on an error ends the exchange: a [`Reply`](crate::Reply) is sent, a failure is logged and
/// answered with a 500.
pub trait Filter: Sized + 'static {
    /// The configuration, read from the YAML under the filter's name. Its schema becomes a part of the module.
    type Config: DeserializeOwned + JsonSchema;

    /// What the filter keeps for one exchange.
    type State: Default + 'static;

    /// The callbacks that the filter has, without `on_`. Written by [`#[filter]`](macro@crate::filter).
    const CALLBACKS: &'static [&'static str];

    /// Makes the filter from its configuration. What can be prepared for all exchanges is prepared here.
    ///
    /// # Errors
    /// The configuration makes no sense. The host refuses the file that it stands in.
    fn configure(config: Self::Config) -> Result<Self, ConfigError>;

    /// The request's head has arrived. `exchange.request()` is complete if `is_last`.
    ///
    /// # Errors
    /// See [`Stop`](crate::Stop).
    fn on_request_headers(&self, exchange: &mut Exchange<Self>, is_last: bool) -> Outcome {
        let _ = (exchange, is_last);
        Ok(Flow::Continue)
    }

    /// A part of the request's body has arrived.
    ///
    /// # Errors
    /// See [`Stop`](crate::Stop).
    fn on_request_body(&self, exchange: &mut Exchange<Self>, body: &mut Body) -> Outcome {
        let _ = (exchange, body);
        Ok(Flow::Continue)
    }

    /// The request ends with trailers.
    ///
    /// # Errors
    /// See [`Stop`](crate::Stop).
    fn on_request_trailers(&self, exchange: &mut Exchange<Self>) -> Outcome {
        let _ = exchange;
        Ok(Flow::Continue)
    }

    /// The response's head has arrived. `exchange.response()` is complete if `is_last`.
    ///
    /// # Errors
    /// See [`Stop`](crate::Stop).
    fn on_response_headers(&self, exchange: &mut Exchange<Self>, is_last: bool) -> Outcome {
        let _ = (exchange, is_last);
        Ok(Flow::Continue)
    }

    /// A part of the response's body has arrived.
    ///
    /// # Errors
    /// See [`Stop`](crate::Stop).
    fn on_response_body(&self, exchange: &mut Exchange<Self>, body: &mut Body) -> Outcome {
        let _ = (exchange, body);
        Ok(Flow::Continue)
    }

    /// The response ends with trailers.
    ///
    /// # Errors
    /// See [`Stop`](crate::Stop).
    fn on_response_trailers(&self, exchange: &mut Exchange<Self>) -> Outcome {
        let _ = exchange;
        Ok(Flow::Continue)
    }

    /// The exchange is over. Heads and trailers can still be read.
    fn on_log(&self, exchange: &mut Exchange<Self>) {
        let _ = exchange;
    }

    /// Some time has passed: see [`tick_every`](crate::tick_every).
    fn on_tick(&self) {}
}
