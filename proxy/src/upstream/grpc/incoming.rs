//! A gRPC response: its head, its messages, its end.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use meshgate_wasm::{GrpcEvents, GrpcStatus, ResponseHead};

use super::framing::{Deframer, FramingError};
use super::status;
use crate::message::grpc::{GRPC_STATUS, is_grpc};
use crate::message::response_arrived;
use crate::upstream::UpstreamBody;

/// A response whose head has come.
pub(super) struct Opened {
    pub(super) head: ResponseHead,
    /// None if the head is all there is, and says how it ended.
    pub(super) incoming: Option<Incoming>,
}

impl Opened {
    /// Looks at a head. An error is the status for a response that is not one of gRPC.
    pub(super) fn of(response: Response<UpstreamBody>, max_message: usize) -> Result<Opened, GrpcStatus> {
        let (parts, body) = response.into_parts();
        let (status, mut headers) = (parts.status, parts.headers);
        response_arrived(&mut headers).map_err(|_| status::internal("the response is not valid HTTP"))?;
        let head = ResponseHead { status, headers };
        if body.is_end_stream() && head.headers.contains_key(GRPC_STATUS) {
            return Ok(Opened { head, incoming: None });
        }
        if head.status != StatusCode::OK {
            return Err(status::of_http(head.status));
        }
        if !is_grpc(&head.headers) {
            return Err(GrpcStatus::new(status::UNKNOWN, "the response's content-type is not gRPC's"));
        }
        Ok(Opened { head, incoming: Some(Incoming { body, deframer: Deframer::new(max_message) }) })
    }
}

/// The body of a response.
pub(super) struct Incoming {
    body: UpstreamBody,
    deframer: Deframer,
}

/// What is in it.
pub(super) enum Item {
    Message(Bytes),
    /// The end, with the trailers; none are as empty ones.
    End(HeaderMap),
}

impl Incoming {
    /// The next message, or the end. An error is the status that the call or stream ends with.
    pub(super) async fn next(&mut self, events: &GrpcEvents) -> Result<Item, GrpcStatus> {
        loop {
            match self.deframer.next() {
                Ok(Some(message)) => return Ok(Item::Message(message)),
                Ok(None) if events.has_room(self.deframer.held()) => {}
                Ok(None) => {
                    return Err(GrpcStatus::new(status::RESOURCE_EXHAUSTED, "no room for the message"));
                }
                Err(error) => {
                    if error == FramingError::TooLarge {
                        events.message_too_large();
                    }
                    return Err(status_of(error));
                }
            }
            let Some(frame) = self.body.frame().await else { return self.end(HeaderMap::new()) };
            let frame = frame.map_err(|error| status::of_body(&error))?;
            match frame.into_data() {
                Ok(chunk) => self.deframer.push(chunk),
                Err(frame) => return self.end(frame.into_trailers().unwrap_or_default()),
            }
        }
    }

    /// What the peer says about its failure counts for more than what it left unfinished.
    fn end(&self, trailers: HeaderMap) -> Result<Item, GrpcStatus> {
        let failed = trailers.contains_key(GRPC_STATUS) && status::of_fields(&trailers).code != status::OK;
        if !failed {
            self.deframer.end().map_err(status_of)?;
        }
        Ok(Item::End(trailers))
    }
}

fn status_of(error: FramingError) -> GrpcStatus {
    match error {
        FramingError::TooLarge => GrpcStatus::new(status::RESOURCE_EXHAUSTED, "message too large"),
        FramingError::Flag => status::internal("message with a compression that was not offered"),
        FramingError::Truncated => status::internal("the response ends inside of a message"),
    }
}
