//! A request's body that may be sent more than once: what came of it is kept, up to a limit, while it streams. The bytes are
//! shared, not copied; nothing is read that no endpoint asks for.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use crate::message::{Body, BodyError, BodyFault, BodyReason};

/// Most pieces that are kept: tiny ones cost more than their bytes.
const MOST_PIECES: usize = 4_096;

/// The request's body, for as many tries as there are.
pub(super) struct Replay(Rc<RefCell<Source>>);

struct Source {
    body: Body,
    /// The length of all of it, if that is known.
    length: Option<u64>,
    kept: Vec<Bytes>,
    bytes: usize,
    limit: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// Something came that is not kept, or it broke: whoever reads it is the last.
    lost: bool,
    /// The try that reads on. What came before, any may read.
    reader: u32,
}

impl Replay {
    pub(super) fn new(body: Body, limit: usize) -> Replay {
        let length = body.size_hint().exact();
        let ended = body.is_end_stream();
        Replay(Rc::new(RefCell::new(Source {
            body,
            length,
            kept: Vec::new(),
            bytes: 0,
            limit,
            trailers: None,
            ended,
            lost: false,
            reader: 0,
        })))
    }

    /// The body for a further try, from its beginning. The try before gets nothing more.
    pub(super) fn body(&self) -> Body {
        let mut source = self.0.borrow_mut();
        source.reader += 1;
        let (number, length) = (source.reader, source.length);
        drop(source);
        let source = Rc::clone(&self.0);
        Body::stream(Replayed { source, number, next: 0, sent: 0, length, trailers_sent: false })
    }

    /// Whether it can be sent again, as far as it came.
    pub(super) fn is_kept(&self) -> bool {
        !self.0.borrow().lost
    }

    /// Whether it came to its end, and can be sent again.
    pub(super) fn is_whole(&self) -> bool {
        let source = self.0.borrow();
        source.ended && !source.lost
    }
}

impl Source {
    /// Notes what came.
    fn note(&mut self, frame: Option<&Result<Frame<Bytes>, BodyError>>) {
        match frame {
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    self.keep(chunk);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(trailers.clone());
                    self.ended = true;
                }
                self.ended |= self.body.is_end_stream();
            }
            Some(Err(_)) => self.lose(),
            None => self.ended = true,
        }
    }

    fn keep(&mut self, chunk: &Bytes) {
        if self.lost {
            return;
        }
        // One that is too long as a whole is not worth its beginning.
        let announced = self.length.unwrap_or(0);
        self.bytes += chunk.len();
        if self.bytes > self.limit || announced > self.limit as u64 || self.kept.len() >= MOST_PIECES {
            self.lose();
        } else {
            self.kept.push(chunk.clone());
        }
    }

    fn lose(&mut self) {
        self.lost = true;
        self.kept = Vec::new();
    }
}

/// The body as one try sends it.
struct Replayed {
    source: Rc<RefCell<Source>>,
    number: u32,
    /// The piece of what is kept that comes next.
    next: usize,
    sent: u64,
    length: Option<u64>,
    trailers_sent: bool,
}

impl Replayed {
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut source = self.source.borrow_mut();
        let source = &mut *source;
        if self.number != source.reader && (source.lost || !source.ended) {
            let details = "another try goes on with this body";
            return Poll::Ready(Some(Err(BodyError::new(BodyFault::Internal, BodyReason::Aborted, details))));
        }
        if let Some(chunk) = source.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if source.ended {
            let trailers = source.trailers.as_ref().filter(|_| !self.trailers_sent).cloned();
            self.trailers_sent = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut source.body).poll_frame(cx));
        source.note(frame.as_ref());
        match &frame {
            Some(Ok(frame)) if frame.is_trailers() => self.trailers_sent = true,
            Some(Ok(_)) => self.next = source.kept.len(),
            _ => {}
        }
        Poll::Ready(frame)
    }
}

impl http_body::Body for Replayed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.poll_source(cx));
        if let Some(Ok(frame)) = &frame {
            self.sent += frame.data_ref().map_or(0, |chunk| chunk.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.borrow();
        source.ended && self.next >= source.kept.len() && (self.trailers_sent || source.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, |length| SizeHint::with_exact(length.saturating_sub(self.sent)))
    }
}
