//! What a filter says of an exchange to whoever reads its entry in the access log: response flags, and fields of its own.

use std::fmt;

use meshgate_abi::{LogEntry, LogField, function};
use prost::Message;

use crate::error::Refused;
use crate::exchange::Exchange;
use crate::filter::Filter;
use crate::host::{self, Status};
use crate::property;
use crate::tcp::{Connection, TcpFilter};

/// What a filter did to an exchange, in the letters of the access log and of `meshgate_downstream_response_flags_total`.
/// All other flags are the proxy's own to find.
///
/// ```
/// assert_eq!(meshgate_sdk::Flag::RateLimited.letters(), "RL");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flag {
    /// DI: it delayed the exchange on purpose.
    DelayInjected,
    /// FI: it made the exchange fail on purpose.
    FaultInjected,
    /// RL: there were too many requests.
    RateLimited,
    /// UAEX: it did not let the request through.
    Unauthorized,
    /// RLSE: it could not find out whether there were too many requests.
    RateLimitServiceError,
    /// RFCF: it answered with a response that it had kept.
    ResponseFromCache,
    /// DO: it turned the request away to protect what is behind it.
    DropOverload,
}

impl Flag {
    /// As the access log shows it.
    pub const fn letters(self) -> &'static str {
        match self {
            Self::DelayInjected => "DI",
            Self::FaultInjected => "FI",
            Self::RateLimited => "RL",
            Self::Unauthorized => "UAEX",
            Self::RateLimitServiceError => "RLSE",
            Self::ResponseFromCache => "RFCF",
            Self::DropOverload => "DO",
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letters())
    }
}

impl<F: Filter> Exchange<F> {
    /// Sets a response flag: the access log and the metrics show it. On hosts other than Meshgate nothing happens.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # struct Gate;
    /// # #[filter]
    /// # impl Filter for Gate {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
    ///     if exchange.request().header("x-token").is_none() {
    ///         exchange.set_flag(meshgate_sdk::Flag::Unauthorized)?;
    ///         exchange.log_field("gate.missing", "x-token")?;
    ///         return Reply::new(403).details("no_token").into();
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// `BAD_ARGUMENT`: it is not called in a callback of the exchange.
    pub fn set_flag(&self, flag: Flag) -> Result<(), Refused> {
        set_flag(flag)
    }

    /// Adds a field to the exchange's entry in the access log; one of the same name is replaced. A name has 1 to 64 of `a`-`z`,
    /// `0`-`9`, `_`, `-` and `.`, and best begins with the filter's own.
    ///
    /// On other hosts it becomes a property of this name, which Envoy's access log shows as `%FILTER_STATE(wasm.NAME)%`.
    ///
    /// # Errors
    /// `BAD_ARGUMENT`: not such a name. `INTERNAL_FAILURE`: the filter's fields of this exchange have become too many
    /// (`limits.log_bytes`).
    pub fn log_field(&self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Refused> {
        log_field(name, value.as_ref())
    }

    /// Says how the exchange's entry in the access log reads, in the place of the line that the log would have: one line, without its
    /// end. What the configuration says of the log holds (`access_log.to`); what is no printable ASCII becomes a blank.
    ///
    /// On other hosts the line goes to the filter's log.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # struct Short;
    /// # #[filter]
    /// # impl Filter for Short {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_log(&self, exchange: &Exchange<Self>) {
    ///     let request = exchange.request();
    ///     let line = format!("{} {} {:?}", request.method(), request.path(), exchange.response_code());
    ///     if let Err(refused) = exchange.log_line(line.as_bytes()) {
    ///         meshgate_sdk::warn!("{refused}");
    ///     }
    /// }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Proxy, Request};
    /// # let mut proxy = Proxy::new::<Short>("");
    /// # assert_eq!(proxy.send(Request::get("/")).status(), 200);
    /// # assert!(proxy.logs().is_empty());
    /// # }
    /// ```
    ///
    /// # Errors
    /// `INTERNAL_FAILURE`: the line, with the filter's fields, is too long (`limits.log_bytes`).
    pub fn log_line(&self, line: &[u8]) -> Result<(), Refused> {
        log_line(line)
    }
}

impl<F: TcpFilter> Connection<F> {
    /// As [`Exchange::set_flag`].
    ///
    /// # Errors
    /// `BAD_ARGUMENT`: it is not called in a callback of the connection.
    pub fn set_flag(&self, flag: Flag) -> Result<(), Refused> {
        set_flag(flag)
    }

    /// As [`Exchange::log_field`].
    ///
    /// # Errors
    /// As for that.
    pub fn log_field(&self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Refused> {
        log_field(name, value.as_ref())
    }

    /// As [`Exchange::log_line`].
    ///
    /// # Errors
    /// As for that.
    pub fn log_line(&self, line: &[u8]) -> Result<(), Refused> {
        log_line(line)
    }
}

fn set_flag(flag: Flag) -> Result<(), Refused> {
    let entry = LogEntry { flags: vec![flag.letters().to_owned()], ..LogEntry::default() };
    match host::call_foreign_function(function::LOG, &entry.encode_to_vec()) {
        Ok(_) | Err(Status::NOT_FOUND) => Ok(()),
        Err(status) => Err(Refused::new(format!("cannot set the flag {flag}"), status)),
    }
}

fn log_field(name: &str, value: &[u8]) -> Result<(), Refused> {
    let field = LogField { name: name.to_owned(), value: value.to_vec() };
    let entry = LogEntry { fields: vec![field], ..LogEntry::default() };
    match host::call_foreign_function(function::LOG, &entry.encode_to_vec()) {
        Ok(_) => Ok(()),
        Err(Status::NOT_FOUND) => property::set(name, value),
        Err(status) => Err(Refused::new(format!("cannot log the field {name}"), status)),
    }
}

fn log_line(line: &[u8]) -> Result<(), Refused> {
    let entry = LogEntry { line: Some(line.to_vec()), ..LogEntry::default() };
    match host::call_foreign_function(function::LOG, &entry.encode_to_vec()) {
        Ok(_) => Ok(()),
        Err(Status::NOT_FOUND) => {
            crate::info!("{}", String::from_utf8_lossy(line));
            Ok(())
        }
        Err(status) => Err(Refused::new("cannot write the access log", status)),
    }
}
