//! Callbacks that a filter has, but not with every configuration.

use meshgate_abi::{Callbacks, function};
use prost::Message;

use crate::error::Refused;
use crate::host::{self, Status};

/// Has the host leave out callbacks for which the filter has no use with its configuration, so that they cost nothing: by
/// the ABI's names without `proxy_on_`, such as `request_headers` for [`on_request`](crate::Filter::on_request). Call it in
/// [`configure`](crate::Filter::configure). Other hosts go on to make them, so they are to do no harm.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # #[derive(Deserialize, JsonSchema)]
/// # struct Config {
/// #     /// What to add to requests.
/// #     stamp: Option<String>,
/// # }
/// # struct Stamp { stamp: Option<String> }
/// # #[filter]
/// # impl Filter for Stamp {
/// fn configure(config: Config) -> Result<Self, ConfigError> {
///     if config.stamp.is_none() {
///         meshgate_sdk::leave_out(&["request_headers"])?;
///     }
///     Ok(Self { stamp: config.stamp })
/// }
///
/// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     if let Some(stamp) = &self.stamp {
///         exchange.request().headers().set("x-stamp", stamp)?;
///     }
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
///
/// # Errors
/// `BAD_ARGUMENT`: there is no such callback.
pub fn leave_out(callbacks: &[&str]) -> Result<(), Refused> {
    tell(&Callbacks { unused: names(callbacks), ..Callbacks::default() })
}

/// As [`leave_out`], but for requests of gRPC, for which these callbacks are made. Other hosts make them for all requests.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Failed;
/// # #[filter]
/// # impl Filter for Failed {
/// fn configure(_: Empty) -> Result<Self, ConfigError> {
///     meshgate_sdk::leave_out_but_for_grpc(&["response_trailers"])?;
///     Ok(Self)
/// }
///
/// fn on_response_trailers(&self, exchange: &Exchange<Self>) -> Outcome {
///     // Other responses with trailers do not have it.
///     if let Some(status) = exchange.response().trailers().get("grpc-status") {
///         exchange.log_field("failed.grpc", status)?;
///     }
///     Ok(())
/// }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request, Response};
/// # let mut proxy = Proxy::new::<Failed>("");
/// # proxy.endpoint(|_| Response::new(200).body("a").trailer("grpc-status", "5"));
/// # assert_eq!(proxy.send(Request::get("/")).log_field("failed.grpc").as_deref(), Some("5"));
/// # }
/// ```
///
/// # Errors
/// `BAD_ARGUMENT`: there is no such callback.
pub fn leave_out_but_for_grpc(callbacks: &[&str]) -> Result<(), Refused> {
    tell(&Callbacks { grpc_only: names(callbacks), ..Callbacks::default() })
}

fn names(callbacks: &[&str]) -> Vec<String> {
    callbacks.iter().map(|name| (*name).to_owned()).collect()
}

fn tell(message: &Callbacks) -> Result<(), Refused> {
    match host::call_foreign_function(function::CALLBACKS, &message.encode_to_vec()) {
        Ok(_) | Err(Status::NOT_FOUND | Status::UNIMPLEMENTED) => Ok(()),
        Err(status) => Err(Refused::new("cannot leave callbacks out", status)),
    }
}
