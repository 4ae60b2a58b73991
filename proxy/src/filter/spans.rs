//! `meshgate.trace`, `meshgate.span` and `meshgate.spans`: what filters did for an exchange, kept for the filter that records its
//! trace. Called by `extensions`.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use meshgate_abi::{Span, TraceContext};
use meshgate_wasm::{ForeignCaller, Limit, Status};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::stream::Stream;

/// What a span counts beside its bytes: what is added to it.
const COST: usize = 64;
/// Bytes of a `tracestate`.
const MAX_STATE: usize = 512;
/// The number of spans in `Spans`.
const SPANS: u32 = 2;
/// Sampled, and whether the parent is elsewhere is known: it is not.
const FLAGS: u32 = 0x101;

/// The trace of an exchange, and its finished spans.
pub(super) struct Spans {
    context: TraceContext,
    /// The filter that records it.
    recorder: u32,
    /// Encoded, as a `Spans`.
    finished: Vec<u8>,
    used: Vec<Used>,
}

/// What a filter has added.
struct Used {
    place: u32,
    spans: u32,
    bytes: u64,
}

/// Says that the exchange is recorded, or tells whether it is.
pub(super) fn trace(caller: &ForeignCaller<'_>, argument: &[u8]) -> Result<Vec<u8>, Status> {
    let (stream, place) = stream(caller)?;
    if argument.is_empty() {
        let recorded = stream.spans.borrow().as_ref().map(|spans| spans.context.clone());
        let answer = recorded.map(|context| TraceContext { new_id: new_id(), ..context });
        return Ok(answer.map(|context| context.encode_to_vec()).unwrap_or_default());
    }
    let context = TraceContext::decode(argument).map_err(|_| Status::BadArgument)?;
    if !is_id(&context.trace_id, 16) || !is_id(&context.span_id, 8) || context.state.len() > MAX_STATE {
        return Err(Status::BadArgument);
    }
    let spans = Spans { context, recorder: place, finished: Vec::new(), used: Vec::new() };
    stream.spans.replace(Some(Box::new(spans)));
    Ok(Vec::new())
}

/// Keeps a span, if the exchange is recorded.
pub(super) fn add(caller: &ForeignCaller<'_>, argument: &[u8]) -> Result<Vec<u8>, Status> {
    let (stream, place) = stream(caller)?;
    let mut spans = stream.spans.borrow_mut();
    let Some(spans) = spans.as_mut() else { return Ok(Vec::new()) };
    let limits = &caller.plugin().limits;
    if argument.len() as u64 > limits.span_bytes {
        caller.exceeded(Limit::SpanBytes);
        return Err(Status::InternalFailure);
    }
    let span = Span::decode(argument).map_err(|_| Status::BadArgument)?;
    let of_this = span.trace_id.is_empty() || span.trace_id == spans.context.trace_id;
    let has_parent = !span.parent_span_id.is_empty();
    if !of_this
        || !is_id(&span.span_id, 8)
        || (has_parent && !is_id(&span.parent_span_id, 8))
        || span.name.is_empty()
        || span.end_time_unix_nano < span.start_time_unix_nano
    {
        return Err(Status::BadArgument);
    }
    if let Err(limit) = spans.count(place, argument.len() + COST, limits.spans, limits.span_bytes) {
        caller.exceeded(limit);
        return Err(Status::InternalFailure);
    }
    let TraceContext { trace_id, span_id, state, .. } = spans.context.clone();
    let parent_span_id = if has_parent { Vec::new() } else { span_id };
    // Behind the filter's own bytes: of what is there twice, the last counts.
    let added = Span { trace_id, parent_span_id, trace_state: state, flags: FLAGS, ..Span::default() };
    let added = added.encode_to_vec();
    encode_key(SPANS, WireType::LengthDelimited, &mut spans.finished);
    encode_varint((argument.len() + added.len()) as u64, &mut spans.finished);
    spans.finished.extend_from_slice(argument);
    spans.finished.extend_from_slice(&added);
    Ok(Vec::new())
}

/// Hands over what there is, to the filter that records the trace.
pub(super) fn take(caller: &ForeignCaller<'_>) -> Result<Vec<u8>, Status> {
    let (stream, place) = stream(caller)?;
    let mut spans = stream.spans.borrow_mut();
    let spans = spans.as_mut().filter(|spans| spans.recorder == place).ok_or(Status::BadArgument)?;
    Ok(std::mem::take(&mut spans.finished))
}

impl Spans {
    /// Counts one more span for the filter at this place.
    fn count(&mut self, place: u32, bytes: usize, most: u32, most_bytes: u64) -> Result<(), Limit> {
        let index = self.used.iter().position(|used| used.place == place).unwrap_or_else(|| {
            self.used.push(Used { place, spans: 0, bytes: 0 });
            self.used.len() - 1
        });
        let Some(used) = self.used.get_mut(index) else { return Err(Limit::Spans) };
        let (spans, bytes) = (used.spans + 1, used.bytes.saturating_add(bytes as u64));
        if spans > most {
            return Err(Limit::Spans);
        }
        if bytes > most_bytes {
            return Err(Limit::SpanBytes);
        }
        (used.spans, used.bytes) = (spans, bytes);
        Ok(())
    }
}

fn stream<'a>(caller: &ForeignCaller<'a>) -> Result<(&'a Stream, u32), Status> {
    let stream = caller.exchange().and_then(|exchange| exchange.as_any().downcast_ref::<Stream>());
    stream.zip(caller.place()).ok_or(Status::BadArgument)
}

fn is_id(bytes: &[u8], length: usize) -> bool {
    bytes.len() == length && bytes.iter().any(|byte| *byte != 0)
}

/// Unique, but not secret.
fn new_id() -> Vec<u8> {
    // The standard library's hash keys come from the operating system's random source.
    let id = RandomState::new().build_hasher().finish();
    id.max(1).to_be_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_filter_has_its_own_room() {
        let mut spans =
            Spans { context: TraceContext::default(), recorder: 0, finished: Vec::new(), used: Vec::new() };
        assert_eq!(spans.count(1, 60, 2, 100), Ok(()));
        assert_eq!(spans.count(1, 41, 2, 100), Err(Limit::SpanBytes));
        assert_eq!(spans.count(1, 40, 2, 100), Ok(()));
        assert_eq!(spans.count(1, 0, 2, 100), Err(Limit::Spans));
        assert_eq!(spans.count(2, 100, 2, 100), Ok(()));
    }

    #[test]
    fn ids_are_new() {
        let ids: std::collections::HashSet<_> = (0..1_000).map(|_| new_id()).collect();
        assert!(ids.len() == 1_000 && ids.iter().all(|id| is_id(id, 8)));
    }
}
