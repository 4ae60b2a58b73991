//! Route decisions: where an exchange goes. Used by filters that route.

use meshgate_abi::{DirectResponse, Header, RouteDecision, function};
use prost::Message;

use crate::config::{Cluster, SubChain};
use crate::error::Refused;
use crate::host;

/// Where an exchange goes, ready to be sent to the host as often as needed.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// use meshgate_sdk::route::Decision;
///
/// struct Split {
///     beta: Decision,
/// }
///
/// # #[derive(Deserialize, JsonSchema)]
/// # struct Config { beta: Cluster }
/// # #[filter]
/// # impl Filter for Split {
/// fn configure(config: Config) -> Result<Self, ConfigError> {
///     let beta = Decision::to(&config.beta).name("beta").timeout(Duration::from_secs(3)).build();
///     Ok(Self { beta })
/// }
///
/// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     if exchange.request().cookie("beta").is_some() {
///         exchange.route(&self.beta)?;
///     }
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct Decision {
    bytes: Box<[u8]>,
}

impl Decision {
    /// Begins a decision for this cluster.
    pub fn to(cluster: &Cluster) -> Builder {
        Builder(RouteDecision { cluster: cluster.as_str().to_owned(), ..RouteDecision::default() })
    }

    /// Begins a decision that answers instead of sending the request anywhere.
    pub fn answer(status: u16, body: impl Into<Vec<u8>>) -> Builder {
        let direct = DirectResponse { status: status.into(), body: body.into(), headers: Vec::new() };
        Builder(RouteDecision { direct: Some(direct), ..RouteDecision::default() })
    }

    /// Tells the host. The last decision before the request is sent wins.
    ///
    /// # Errors
    /// `BAD_ARGUMENT`: the cluster or the chain does not exist. `NOT_FOUND`: the host is not Meshgate.
    pub(crate) fn decide(&self) -> Result<(), Refused> {
        match host::call_foreign_function(function::ROUTE, &self.bytes) {
            Ok(_) => Ok(()),
            Err(status) => Err(Refused::new("cannot decide the route", status)),
        }
    }
}

/// Describes a [`Decision`].
#[derive(Clone, Debug)]
pub struct Builder(RouteDecision);

impl Builder {
    /// Names the route, for logs and metrics.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.0.route = name.into();
        self
    }

    /// Bounds the time from the end of the request to the end of the response.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<std::time::Duration>) -> Self {
        let timeout = timeout.into();
        // 0 would mean "not set".
        self.0.timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        self
    }

    /// Attaches the filters of a sub-chain: they run next.
    #[must_use]
    pub fn chain(mut self, chain: &SubChain) -> Self {
        self.0.chain = chain.as_str().to_owned();
        self
    }

    /// Adds a field to the answer of [`Decision::answer`].
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        if let Some(direct) = &mut self.0.direct {
            direct.headers.push(Header { name: name.into(), value: value.into() });
        }
        self
    }

    /// The finished decision.
    pub fn build(&self) -> Decision {
        Decision { bytes: self.0.encode_to_vec().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_carries_what_was_said() {
        let decision = Decision::to(&"reviews".into())
            .name("canary")
            .timeout(std::time::Duration::from_micros(1))
            .chain(&"routes/0/filters".into())
            .build();
        let expected = RouteDecision {
            route: "canary".into(),
            cluster: "reviews".into(),
            timeout_ms: 1,
            chain: "routes/0/filters".into(),
            direct: None,
        };
        assert_eq!(RouteDecision::decode(&*decision.bytes), Ok(expected));
    }
}
