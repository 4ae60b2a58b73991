//! Streams: resume, close, answer.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;

use super::Functions;
use super::functions;
use crate::contexts::Marks;
use crate::exchange::LocalResponse;
use crate::fields;
use crate::memory::{Allowed, Call, Outcome, Span, run};
use crate::pairs;
use crate::phase::Phase;
use crate::remains::Data;
use crate::status::Status;

/// Bytes of a local response's details that are kept.
const MAX_DETAILS: usize = 256;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    functions!(functions, "env", InCallbacks, {
        "proxy_continue_stream" => resume[stream: u32];
        "proxy_close_stream" => close[stream: u32];
        "proxy_continue_request" => resume_request[];
        "proxy_continue_response" => resume_response[];
        "proxy_clear_route_cache" => clear_route_cache[];
    });
    type Caller<'a> = wasmtime::Caller<'a, Data>;
    #[expect(clippy::too_many_arguments, reason = "the ABI's")]
    fn send(
        c: Caller<'_>,
        status: u32,
        d: u32,
        dn: u32,
        b: u32,
        bn: u32,
        h: u32,
        hn: u32,
        grpc: u32,
    ) -> wasmtime::Result<u32> {
        run(c, Allowed::InCallbacks, |call| answer(call, status, (d, dn), (b, bn), (h, hn), grpc))
    }
    functions.define("env", "proxy_send_local_response", &['i'; 8], send)
}

/// What a stream's number means: HTTP request and response, then the TCP connection's two sides.
fn resume(call: &mut Call<'_>, stream: u32) -> Outcome {
    match stream {
        0 => resume_request(call),
        1 => resume_response(call),
        2 => mark(call, Marks::RESUMED_REQUEST, true),
        3 => mark(call, Marks::RESUMED_RESPONSE, true),
        _ => Err(Status::BadArgument.into()),
    }
}

fn resume_request(call: &mut Call<'_>) -> Outcome {
    mark(call, Marks::RESUMED_REQUEST, false)
}

fn resume_response(call: &mut Call<'_>) -> Outcome {
    mark(call, Marks::RESUMED_RESPONSE, false)
}

fn close(call: &mut Call<'_>, stream: u32) -> Outcome {
    match stream {
        0..=3 => mark(call, Marks::CLOSED, stream >= 2),
        _ => Err(Status::BadArgument.into()),
    }
}

/// A route is decided after the request's filters, so there is nothing to forget.
#[expect(clippy::unnecessary_wraps, reason = "a hostcall's form")]
fn clear_route_cache(_: &mut Call<'_>) -> Outcome {
    Ok(())
}

/// Takes effect when the callback has returned. Without a stream of the kind that is meant there is nothing to do, and
/// the Rust SDK takes no other answer than OK.
fn mark(call: &mut Call<'_>, mark: Marks, tcp: bool) -> Outcome {
    let state = call.state();
    let unseen = state.acts_on_another() || is_of_other_direction(mark, state.running.phase);
    if let Some(stream) = state.stream().filter(|stream| stream.tcp == tcp) {
        stream.mark(mark);
        if unseen && let Some(exchange) = stream.exchange.upgrade() {
            exchange.wake();
        }
    }
    Ok(())
}

/// Whether the mark resumes another direction than the one that the stream's own callback is about. With the latter the
/// embedder goes on when the callback has returned; the other may be a task's that looks only when it is woken.
fn is_of_other_direction(mark: Marks, phase: Phase) -> bool {
    match phase {
        Phase::RequestBody | Phase::RequestTrailers | Phase::DownstreamData => {
            mark == Marks::RESUMED_RESPONSE
        }
        Phase::ResponseHeaders
        | Phase::ResponseBody
        | Phase::ResponseTrailers
        | Phase::UpstreamData
        | Phase::UpstreamClose => mark == Marks::RESUMED_REQUEST,
        Phase::ForeignFunction => mark != Marks::CLOSED,
        // Nothing of the other direction has come that could be held, or all is over.
        _ => false,
    }
}

/// Leaves a response for the embedder. The first counts; for later ones the guest sees OK as well, as in other
/// hosts, since the Rust SDK traps on anything else.
fn answer(
    call: &mut Call<'_>,
    status: u32,
    details: Span,
    body: Span,
    headers: Span,
    grpc_status: u32,
) -> Outcome {
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.filter(|status| !status.is_informational()).ok_or(Status::BadArgument)?;
    let headers = fields::local_response(&pairs::decode(call.read(headers)?.0)?)?;
    let details = clean(call.read(details)?.0);
    let body = Bytes::copy_from_slice(call.read(body)?.0);
    let grpc_status = i32::try_from(grpc_status).ok().filter(|status| *status <= 16);
    let state = call.state();
    let another = state.acts_on_another();
    let Some(stream) = state.stream().cloned() else { return Ok(()) };
    let Some(exchange) = stream.exchange.upgrade() else { return Ok(()) };
    let response = LocalResponse { status, headers, body, grpc_status, details, place: stream.place };
    // A TCP connection has nothing to answer.
    let Some(http) = exchange.http() else { return Ok(()) };
    let accepted = match http.try_borrow_mut() {
        Ok(mut http) => http.answer(response),
        Err(_) => return Err(Status::InternalFailure.into()),
    };
    if accepted {
        if another {
            exchange.wake();
        } else {
            stream.mark(Marks::ANSWERED);
        }
    } else {
        tracing::debug!(plugin = %stream.core.spec.name, "a second local response is ignored");
    }
    Ok(())
}

/// For one word in a log line.
fn clean(details: &[u8]) -> Cow<'static, str> {
    let letters = String::from_utf8_lossy(details);
    let word = |letter: char| if letter.is_whitespace() || letter.is_control() { '_' } else { letter };
    Cow::Owned(letters.chars().take(MAX_DETAILS).map(word).collect())
}
