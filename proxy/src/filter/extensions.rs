//! The `meshgate.*` foreign functions, and those of other hosts that touch routing: what a filter can decide beyond the
//! standard ABI. Called by the worker's
//! `Host` for every foreign function of a guest.

use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use meshgate_abi::{DirectResponse, Header, MetricType, RouteDecision, Series, Throttle, function};
use meshgate_wasm::{Callbacks, ForeignCaller, LocalResponse, MetricKind, SeriesSpec, Status};
use prost::Message;

use super::encoding;
use super::filter_state;
use super::log_entry;
use super::session::Session;
use super::spans;
use super::stream::{Decision, Extras, Mirror, Stream, Target, TimeLimit};
use super::verify;

/// Bytes of a series' definition: more than its labels and buckets can fill.
const MAX_SERIES: usize = 64 << 10;
/// Fields of a direct response, as of other maps that come from guests.
const MAX_FIELDS: usize = 1_024;
/// Copies of a request.
const MAX_MIRRORS: usize = 16;
/// Bytes of a body that may wait for a mirror, if the filter does not say.
const MIRROR_BUFFER: usize = 64 << 10;

/// Answers a foreign function; `NotFound` if there is none of this name. That a message is not too large was looked at
/// before.
pub fn foreign_function(
    caller: &mut ForeignCaller<'_>,
    name: &str,
    argument: &[u8],
) -> Result<Vec<u8>, Status> {
    match name {
        function::ROUTE => route(caller, argument),
        function::METRIC => metric(caller, argument),
        function::ATTEMPTS => of_stream(caller, |stream, place| stream.watch_attempts(place, argument)),
        function::CALLBACKS => leave_out(caller, argument),
        function::RETRY => of_stream(caller, |stream, place| stream.answer_attempt(place, argument)),
        function::VERIFY => verify::verify(argument),
        function::LOG => log_entry::add(caller, argument),
        function::THROTTLE => throttle(caller, argument),
        function::TRACE => spans::trace(caller, argument),
        function::SPAN => spans::add(caller, argument),
        function::SPANS => spans::take(caller),
        function::ENCODE => encoding::set(caller, argument),
        filter_state::FUNCTION => filter_state::set(caller, argument),
        _ => Err(Status::NotFound),
    }
}

fn route(caller: &ForeignCaller<'_>, argument: &[u8]) -> Result<Vec<u8>, Status> {
    let exchange = caller.exchange().ok_or(Status::BadArgument)?.as_any();
    let mut decision = RouteDecision::decode(argument).map_err(|_| Status::BadArgument)?;
    if let Some(session) = exchange.downcast_ref::<Session>() {
        return choose(session, &decision);
    }
    let stream = exchange.downcast_ref::<Stream>().ok_or(Status::BadArgument)?;
    let cluster = match decision.cluster.as_str() {
        "" if decision.direct.is_some() => Target { name: Rc::from(""), metadata: None },
        name => stream.cluster(name).ok_or(Status::BadArgument)?,
    };
    let chain = match decision.chain.as_str() {
        "" => None,
        key => {
            let filter = caller.place().and_then(|place| stream.filter(place)).ok_or(Status::BadArgument)?;
            Some(Rc::clone(filter.chain(key).ok_or(Status::BadArgument)?))
        }
    };
    let timeout = match (decision.timeout_ms, decision.no_timeout) {
        (0, false) => TimeLimit::Default,
        (0, true) => TimeLimit::Unlimited,
        (time, false) => TimeLimit::Within(Duration::from_millis(time)),
        (_, true) => return Err(Status::BadArgument),
    };
    let extras = has_extras(&decision).then(|| extras(stream, &mut decision)).transpose()?;
    stream.decide(Decision {
        route: decision.route.into(),
        cluster,
        timeout,
        chain,
        direct: decision.direct.map(direct).transpose()?,
        extras: extras.map(Rc::new),
    });
    Ok(Vec::new())
}

/// Whether a decision says what few say.
fn has_extras(decision: &RouteDecision) -> bool {
    !decision.hash_key.is_empty()
        || !decision.response_headers.is_empty()
        || !decision.mirrors.is_empty()
        || decision.endpoint_authority
}

/// Takes it out of the decision.
fn extras(stream: &Stream, decision: &mut RouteDecision) -> Result<Extras, Status> {
    if decision.mirrors.len() > MAX_MIRRORS {
        return Err(Status::BadArgument);
    }
    let mirrors = std::mem::take(&mut decision.mirrors).into_iter().map(|mirror| mirrored(stream, mirror));
    Ok(Extras {
        hash_key: std::mem::take(&mut decision.hash_key).into(),
        response_headers: fields(std::mem::take(&mut decision.response_headers))?,
        mirrors: mirrors.collect::<Result<_, _>>()?,
        endpoint_authority: decision.endpoint_authority,
    })
}

fn mirrored(stream: &Stream, mirror: meshgate_abi::Mirror) -> Result<Mirror, Status> {
    // What stands after a host's name there must be part of it.
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !mirror.authority_suffix.bytes().all(sound) || mirror.buffer > meshgate_abi::Mirror::MOST_BUFFER {
        return Err(Status::BadArgument);
    }
    Ok(Mirror {
        cluster: stream.cluster(&mirror.cluster).ok_or(Status::BadArgument)?.name,
        suffix: mirror.authority_suffix.into(),
        compare: mirror.compare,
        buffer: usize::try_from(mirror.buffer).ok().filter(|buffer| *buffer > 0).unwrap_or(MIRROR_BUFFER),
    })
}

/// A TCP connection goes to a cluster; nothing else of a decision means anything for it.
fn choose(session: &Session, decision: &RouteDecision) -> Result<Vec<u8>, Status> {
    let timeout = decision.timeout_ms > 0 || decision.no_timeout;
    let other = decision.direct.is_some() || !decision.chain.is_empty() || timeout || has_extras(decision);
    if other || !session.choose(&decision.cluster, Some(&decision.route)) {
        return Err(Status::BadArgument);
    }
    Ok(Vec::new())
}

/// A function that only a filter of an HTTP exchange may call, and that answers nothing.
fn of_stream(
    caller: &ForeignCaller<'_>,
    call: impl FnOnce(&Stream, u32) -> Result<(), Status>,
) -> Result<Vec<u8>, Status> {
    let stream = caller.exchange().and_then(|exchange| exchange.as_any().downcast_ref::<Stream>());
    let (stream, place) = stream.zip(caller.place()).ok_or(Status::BadArgument)?;
    call(stream, place).map(|()| Vec::new())
}

fn direct(direct: DirectResponse) -> Result<LocalResponse, Status> {
    let status = u16::try_from(direct.status).ok().filter(|status| (200..600).contains(status));
    let status = status.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Status::BadArgument)?;
    let headers = fields(direct.headers)?;
    let body = direct.body.into();
    Ok(LocalResponse {
        status,
        headers,
        body,
        grpc_status: None,
        details: "direct_response".into(),
        place: 0,
    })
}

fn fields(headers: Vec<Header>) -> Result<HeaderMap, Status> {
    if headers.len() > MAX_FIELDS {
        return Err(Status::BadArgument);
    }
    let mut fields = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| Status::BadArgument)?;
        let value =
            HeaderValue::from_maybe_shared(Bytes::from(header.value)).map_err(|_| Status::BadArgument)?;
        fields.append(name, value);
    }
    Ok(fields)
}

/// What need not be called for the plugin.
fn leave_out(caller: &ForeignCaller<'_>, argument: &[u8]) -> Result<Vec<u8>, Status> {
    let set = |names: &[String]| {
        let mut named = names.iter().map(|name| Callbacks::named(name).ok_or(Status::BadArgument));
        named.try_fold(Callbacks::default(), |all, one| Ok::<_, Status>(all.union(one?)))
    };
    let message = meshgate_abi::Callbacks::decode(argument).map_err(|_| Status::BadArgument)?;
    caller.leave_out(set(&message.unused)?, set(&message.grpc_only)?);
    Ok(Vec::new())
}

/// The speed of the response's body.
fn throttle(caller: &ForeignCaller<'_>, argument: &[u8]) -> Result<Vec<u8>, Status> {
    let exchange = caller.exchange().ok_or(Status::BadArgument)?.as_any();
    let stream = exchange.downcast_ref::<Stream>().ok_or(Status::BadArgument)?;
    let Throttle { bytes_per_second } = Throttle::decode(argument).map_err(|_| Status::BadArgument)?;
    if stream.response_has_begun() {
        return Err(Status::BadArgument);
    }
    stream.set_throttle(NonZeroU64::new(bytes_per_second));
    Ok(Vec::new())
}

fn metric(caller: &mut ForeignCaller<'_>, argument: &[u8]) -> Result<Vec<u8>, Status> {
    if argument.len() > MAX_SERIES {
        return Err(Status::BadArgument);
    }
    let series = Series::decode(argument).map_err(|_| Status::BadArgument)?;
    let kind = match MetricType::try_from(series.r#type).map_err(|_| Status::BadArgument)? {
        MetricType::Counter => MetricKind::Counter,
        MetricType::Gauge => MetricKind::Gauge,
        MetricType::Histogram => MetricKind::Histogram,
    };
    let labels: Vec<_> =
        series.labels.iter().map(|label| (label.name.as_str(), label.value.as_str())).collect();
    let id = caller.series(&SeriesSpec {
        name: &series.name,
        kind,
        labels: &labels,
        help: &series.help,
        scale: series.scale,
        buckets: &series.buckets,
    })?;
    Ok(id.to_le_bytes().to_vec())
}
