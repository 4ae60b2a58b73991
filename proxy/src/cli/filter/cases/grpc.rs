//! gRPC as the servers of a case speak it: messages with their prefixes, and an answer to a call or a stream.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use hyper::body::Incoming;

use super::form::Grpc;
use super::message::ProtoMessage;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What a server answers to gRPC.
#[derive(Clone, Debug)]
pub(crate) struct GrpcAnswering {
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) status: u32,
    pub(crate) words: String,
    /// An answer to each message as it comes.
    pub(crate) each: bool,
}

impl GrpcAnswering {
    /// What a case says. An error is what is wrong with a message.
    pub(super) fn of(grpc: &Grpc) -> Result<GrpcAnswering, String> {
        let messages = grpc.messages.iter().map(ProtoMessage::encoded).collect::<Result<_, _>>()?;
        Ok(GrpcAnswering { messages, status: grpc.status, words: grpc.words.clone(), each: grpc.each })
    }

    /// What comes of a call: one message, or the status.
    pub(crate) fn of_call(&self) -> Result<Bytes, (u32, String)> {
        const INTERNAL: u32 = 13;
        match (self.status, self.messages.first()) {
            (0, Some(message)) => Ok(Bytes::copy_from_slice(message)),
            (0, None) => Err((INTERNAL, "no message".to_owned())),
            (status, _) => Err((status, self.words.clone())),
        }
    }
}

/// The messages that have come on a call or stream.
pub(super) type Came = Rc<RefCell<Vec<Bytes>>>;

/// The response to a call or stream: a body that reads the request's.
pub(super) fn respond(answering: GrpcAnswering, request: Incoming, came: Came) -> Response<Conversation> {
    let messages = answering.messages.iter().map(|message| framed(message)).collect();
    let body = Conversation {
        request: Some(request),
        bytes: BytesMut::new(),
        came,
        answered: 0,
        messages,
        end: Some(trailers(answering.status, &answering.words)),
        each: answering.each,
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC);
    response
}

/// The response of a server that has no such method.
pub(super) fn unimplemented() -> Response<Full<Bytes>> {
    const UNIMPLEMENTED: u32 = 12;
    let mut response = Response::new(Full::default());
    *response.headers_mut() = trailers(UNIMPLEMENTED, "the case says nothing of gRPC");
    response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC);
    response
}

/// Whether a request is a call or a stream.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn trailers(status: u32, words: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from(status));
    if let Ok(words) = HeaderValue::try_from(words)
        && !words.is_empty()
    {
        trailers.insert(GRPC_MESSAGE, words);
    }
    trailers
}

fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

/// Answers while it reads.
pub(super) struct Conversation {
    /// None when all of it has come.
    request: Option<Incoming>,
    bytes: BytesMut,
    came: Came,
    answered: usize,
    messages: VecDeque<Bytes>,
    end: Option<HeaderMap>,
    each: bool,
}

impl Conversation {
    /// Reads what there is of the request.
    fn read(&mut self, cx: &mut Context<'_>) {
        while let Some(request) = &mut self.request {
            match Pin::new(request).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(chunk) = frame.into_data() {
                        self.bytes.extend_from_slice(&chunk);
                    }
                }
                // However it ended.
                Poll::Ready(_) => self.request = None,
                Poll::Pending => break,
            }
        }
        while let Some([_, length @ ..]) = self.bytes.first_chunk::<5>() {
            let length = u32::from_be_bytes(*length) as usize;
            if self.bytes.len() - 5 < length {
                break;
            }
            self.bytes.advance(5);
            self.came.borrow_mut().push(self.bytes.split_to(length).freeze());
        }
    }
}

impl Body for Conversation {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.read(cx);
        let (came, over) = (self.came.borrow().len(), self.request.is_none());
        let in_turn = self.answered < came || (self.messages.is_empty() && came > 0);
        let is_due = over || (self.each && in_turn);
        if !is_due {
            return Poll::Pending;
        }
        self.answered += 1;
        let next = self.messages.pop_front().map(Frame::data);
        let next = next.or_else(|| self.end.take().map(Frame::trailers));
        Poll::Ready(next.map(Ok))
    }
}
