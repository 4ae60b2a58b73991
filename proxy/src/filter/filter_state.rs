//! `set_envoy_filter_state`: the values by which filters made for Envoy steer it. The one that is known here is the
//! cluster; it is a decision like that of `meshgate.route`, for the exchange or for the whole connection.

use std::rc::Rc;

use bytes::Bytes;
use meshgate_wasm::{ForeignCaller, Status};
use prost::Message;

use super::stream::{Decision, Stream};

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
    let stream = caller.exchange().and_then(|exchange| exchange.as_any().downcast_ref::<Stream>());
    let stream = stream.ok_or(Status::NotFound)?;
    if arguments.path != CLUSTER {
        return Err(Status::NotFound);
    }
    let cluster = stream.cluster(&arguments.value).ok_or(Status::BadArgument)?;
    let value = Bytes::from(arguments.value);
    let kept = {
        let attributes = &mut stream.http().borrow_mut().attributes;
        if arguments.span == Span::DownstreamConnection as i32 {
            attributes.connection.custom.borrow_mut().set(CLUSTER_PATH, value)
        } else {
            attributes.custom.set(CLUSTER_PATH, value)
        }
    };
    if !kept {
        return Err(Status::InternalFailure);
    }
    // What was decided beside the cluster stays.
    let decided = stream.decision().filter(|decision| decision.direct.is_none());
    let decision = decided.unwrap_or_else(|| Decision {
        route: Rc::from(""),
        cluster: Rc::clone(&cluster),
        timeout: None,
        chain: None,
        direct: None,
    });
    stream.decide(Decision { cluster, ..decision });
    Ok(Vec::new())
}
