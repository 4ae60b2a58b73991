//! `set_envoy_filter_state`: the values by which filters made for Envoy steer it. The one that is known here is the
//! cluster; it is a decision like that of `meshgate.route`, for the exchange or for the whole connection.

use std::rc::Rc;

use meshgate_wasm::{Attributes, ForeignCaller, Status};
use prost::Message;

use super::session::Session;
use super::stream::{Decision, Stream, TimeLimit};

/// The foreign function's name.
pub(super) const FUNCTION: &str = "set_envoy_filter_state";
/// The value that names a cluster.
const CLUSTER: &str = "envoy.tcp_proxy.cluster";
/// The property that it is read as.
pub(super) const CLUSTER_PATH: &[u8] = b"filter_state\0envoy.tcp_proxy.cluster";

/// Envoy's `SetEnvoyFilterStateArguments`.
#[derive(Clone, PartialEq, Message)]
struct Arguments {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(string, tag = "2")]
    value: String,
    #[prost(enumeration = "Span", tag = "3")]
    span: i32,
}

/// How long a value lasts. A filter chain lasts as long as the request here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Span {
    FilterChain = 0,
    DownstreamRequest = 1,
    DownstreamConnection = 2,
}

/// Sets a value; NotFound for one that nothing here reads, as Envoy answers about those it does not know.
pub(super) fn set(caller: &ForeignCaller<'_>, argument: &[u8]) -> Result<Vec<u8>, Status> {
    let arguments = Arguments::decode(argument).map_err(|_| Status::BadArgument)?;
    let exchange = caller.exchange().ok_or(Status::NotFound)?.as_any();
    if arguments.path != CLUSTER {
        return Err(Status::NotFound);
    }
    let cluster = &arguments.value;
    if let Some(session) = exchange.downcast_ref::<Session>() {
        if !session.choose(cluster, None) {
            return Err(Status::BadArgument);
        }
        return keep(&mut session.attributes().borrow_mut(), &arguments).map(|()| Vec::new());
    }
    let stream = exchange.downcast_ref::<Stream>().ok_or(Status::NotFound)?;
    let cluster = stream.cluster(cluster).ok_or(Status::BadArgument)?;
    keep(&mut stream.http().borrow_mut().attributes, &arguments)?;
    // What was decided beside the cluster stays.
    let decided = stream.decision().filter(|decision| decision.direct.is_none());
    let decision = decided.unwrap_or_else(|| Decision {
        route: Rc::from(""),
        cluster: cluster.clone(),
        timeout: TimeLimit::Default,
        chain: None,
        direct: None,
        extras: None,
    });
    stream.decide(Decision { cluster, ..decision });
    Ok(Vec::new())
}

/// Where filters read it, as the property `filter_state.envoy.tcp_proxy.cluster`.
fn keep(attributes: &mut Attributes, arguments: &Arguments) -> Result<(), Status> {
    let value = arguments.value.as_bytes();
    let kept = if arguments.span == Span::DownstreamConnection as i32 {
        attributes.connection.custom.borrow_mut().set(CLUSTER_PATH, value)
    } else {
        attributes.custom.set(CLUSTER_PATH, value)
    };
    if kept { Ok(()) } else { Err(Status::InternalFailure) }
}
