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

    /// Begins a part of a decision: what depends on the request and is added to one that does not, by [`and`](Self::and).
    pub fn part() -> Builder {
        Builder(RouteDecision::default())
    }

    /// This decision, and this part in addition. What the part says takes the place of what the decision says; fields and
    /// mirrors are added.
    ///
    /// ```
    /// use meshgate_sdk::route::Decision;
    ///
    /// let prepared = Decision::to(&"carts".into()).name("carts").build();
    /// let for_this_request = prepared.and(&Decision::part().hash_key("session-7"));
    /// # let _ = for_this_request;
    /// ```
    #[must_use]
    pub fn and(&self, part: &Builder) -> Decision {
        let mut bytes = Vec::with_capacity(self.bytes.len() + part.0.encoded_len());
        bytes.extend_from_slice(&self.bytes);
        // There is room for as much as is needed.
        let _ = part.0.encode(&mut bytes);
        Decision { bytes: bytes.into() }
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
///
/// ```
/// # use std::time::Duration;
/// use meshgate_sdk::route::{Decision, Mirror};
///
/// let carts = Decision::to(&"carts".into())
///     .name("carts")
///     .timeout(Duration::from_secs(3))
///     .endpoint_authority()
///     .response_header("x-served-by", "carts")
///     .chain(&"routes/0/filters".into());
/// let copied = carts.clone().mirror(Mirror::to(&"carts-next".into())).build();
/// let events = carts.and(&Decision::part().name("events").no_timeout().hash_key("session-7")).build();
/// let gone = Decision::answer(410, "no more\n").header("cache-control", "max-age=60").build();
/// # let _ = (copied, events, gone);
/// ```
#[derive(Clone, Debug)]
pub struct Builder(RouteDecision);

impl Builder {
    /// Names the route, for logs and metrics.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.0.route = name.into();
        self
    }

    /// Bounds the time from the end of the request to the end of the response. Without it, the host's default does.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<std::time::Duration>) -> Self {
        let timeout = timeout.into();
        // 0 would mean "not set".
        self.0.timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        self
    }

    /// Lets the exchange take as long as it takes, whatever the host's default is.
    #[must_use]
    pub fn no_timeout(mut self) -> Self {
        self.0.no_timeout = true;
        self
    }

    /// By what a load balancer chooses the endpoint, in the place of its own key: the same endpoint for the same bytes. For
    /// those that choose by a key (`ring_hash`, `maglev`); others do not look at it.
    #[must_use]
    pub fn hash_key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.0.hash_key = key.into();
        self
    }

    /// Adds a field to the response, as if its sender had sent it: this filter and others see it there.
    #[must_use]
    pub fn response_header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.0.response_headers.push(Header { name: name.into(), value: value.into() });
        self
    }

    /// Sends a copy of the request to a cluster.
    #[must_use]
    pub fn mirror(mut self, mirror: Mirror) -> Self {
        self.0.mirrors.push(mirror.0);
        self
    }

    /// Puts the endpoint's host name in the place of the request's authority, if the endpoint is known by one.
    #[must_use]
    pub fn endpoint_authority(mut self) -> Self {
        self.0.endpoint_authority = true;
        self
    }

    /// What both say: see [`Decision::and`].
    #[must_use]
    pub fn and(mut self, part: &Builder) -> Self {
        // Reading what was written right here cannot fail.
        let _ = self.0.merge(&*part.0.encode_to_vec());
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

/// A cluster that gets a copy of a request. Its response is dropped, and nothing waits for it.
///
/// ```
/// use meshgate_sdk::route::{Decision, Mirror};
///
/// let next = Mirror::to(&"carts-next".into()).authority_suffix("-shadow").compare().buffer(1 << 20);
/// let decision = Decision::to(&"carts".into()).mirror(next).build();
/// # let _ = decision;
/// ```
#[derive(Clone, Debug)]
pub struct Mirror(meshgate_abi::Mirror);

impl Mirror {
    /// The largest [`buffer`](Self::buffer).
    pub const MOST_BUFFER: u64 = meshgate_abi::Mirror::MOST_BUFFER;

    /// A copy for this cluster.
    pub fn to(cluster: &Cluster) -> Self {
        Self(meshgate_abi::Mirror { cluster: cluster.as_str().to_owned(), ..Default::default() })
    }

    /// Puts this at the end of the host in the copy's authority, so that who gets it can tell.
    #[must_use]
    pub fn authority_suffix(mut self, suffix: impl Into<String>) -> Self {
        self.0.authority_suffix = suffix.into();
        self
    }

    /// Has the host count whether the status of the copy's response is that of the request's.
    #[must_use]
    pub fn compare(mut self) -> Self {
        self.0.compare = true;
        self
    }

    /// How many bytes of the body may wait for a cluster that is slower than the request's endpoint; a copy that would need
    /// more is given up. The host's default is 64 KiB.
    #[must_use]
    pub fn buffer(mut self, bytes: u64) -> Self {
        self.0.buffer = bytes;
        self
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
            ..RouteDecision::default()
        };
        assert_eq!(RouteDecision::decode(&*decision.bytes), Ok(expected));
    }

    #[test]
    fn a_part_is_added_to_a_decision() {
        let mirror = |cluster: &str| Mirror::to(&cluster.into()).compare().buffer(7);
        let part = Decision::part().hash_key("k").mirror(mirror("b")).no_timeout();
        let decision = Decision::to(&"main".into()).mirror(mirror("a")).build();
        let both = RouteDecision::decode(&*decision.and(&part).bytes).unwrap();
        assert_eq!((&*both.cluster, &*both.hash_key, both.no_timeout), ("main", &b"k"[..], true));
        let clusters: Vec<_> = both.mirrors.iter().map(|mirror| &*mirror.cluster).collect();
        assert_eq!(clusters, ["a", "b"]);
        let parts = Decision::part().response_header("a", "b").and(&part);
        assert_eq!(
            (parts.0.mirrors.len(), parts.0.response_headers.len(), &*parts.0.hash_key),
            (1, 1, &b"k"[..])
        );
    }
}
