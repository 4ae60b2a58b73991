//! Interim responses (1xx), which an endpoint may send before the response itself: a few, and no flood of them.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The error that ends a connection whose endpoint sends more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("more than {0} interim responses")]
pub(super) struct TooManyInterim(pub(super) usize);

impl TooManyInterim {
    /// Whether that is what an error of a connection says.
    pub(super) fn is(error: &hyper::Error) -> bool {
        let mut cause = error.source();
        while let Some(error) = cause {
            let below = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            if below.is_some_and(|error| error.is::<TooManyInterim>()) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// The requests on an HTTP/1.1 connection, counted, so that whoever reads from it knows when a new answer begins. Shared with
/// the task that owns the connection; both are on one thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests(Arc<AtomicU32>);

impl Requests {
    /// A request begins.
    pub(super) fn begin(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// Counts the interim responses on an HTTP/1.1 connection as their bytes pass. Of a usual answer it looks at the status line
/// alone.
#[derive(Debug)]
pub(super) struct InterimWatch {
    requests: Requests,
    /// Most of one request.
    most: usize,
    /// The request that the head belongs to, and the last one whose answer has begun.
    current: u32,
    answered: u32,
    /// Bytes of the head so far, up to the end of its status code.
    at: usize,
    code: [u8; 3],
    /// In an interim head behind its status code: bytes of the line so far.
    line: Option<usize>,
    count: usize,
}

/// Where the status code is in `HTTP/1.1 100 Continue`.
const CODE: std::ops::Range<usize> = 9..12;

impl InterimWatch {
    pub(super) fn new(requests: Requests, most: usize) -> InterimWatch {
        InterimWatch { requests, most, current: 0, answered: 0, at: 0, code: [0; 3], line: None, count: 0 }
    }

    /// Bytes came from the endpoint.
    ///
    /// # Errors
    /// They hold one interim response too many.
    pub(super) fn received(&mut self, bytes: &[u8]) -> Result<(), TooManyInterim> {
        let request = self.requests.0.load(Relaxed);
        if request == self.answered {
            return Ok(());
        }
        if request != self.current {
            (self.current, self.at, self.line, self.count) = (request, 0, None, 0);
        }
        for byte in bytes {
            match self.line {
                Some(0) if *byte == b'\n' => (self.at, self.line) = (0, None),
                Some(_) if *byte == b'\n' => self.line = Some(0),
                Some(_) if *byte == b'\r' => {}
                Some(length) => self.line = Some(length.saturating_add(1)),
                None => {
                    if CODE.contains(&self.at) {
                        self.code[self.at - CODE.start] = *byte;
                    }
                    self.at += 1;
                    if self.at == CODE.end && !self.begins_interim() {
                        self.answered = request;
                        return Ok(());
                    }
                }
            }
            if self.count > self.most {
                return Err(TooManyInterim(self.most));
            }
        }
        Ok(())
    }

    /// Behind a status code: whether another head will follow this one.
    fn begins_interim(&mut self) -> bool {
        // 101 is the last word of HTTP.
        let interim = self.code[0] == b'1' && self.code != *b"101";
        if interim {
            self.line = Some(self.at);
            self.count += 1;
        }
        interim
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 10;
    const INTERIM: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n";
    const FINAL: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 26\r\n\r\nHTTP/1.1 100 \n\nHTTP/1.1 100";

    /// How the answers to requests fare, each in pieces of `size` bytes.
    fn watch(answers: &[Vec<u8>], size: usize) -> Vec<bool> {
        let requests = Requests::default();
        let mut watch = InterimWatch::new(requests.clone(), MOST);
        let one = |answer: &Vec<u8>| {
            requests.begin();
            answer.chunks(size).all(|piece| watch.received(piece).is_ok())
        };
        answers.iter().map(one).collect()
    }

    #[test]
    fn a_few_pass_and_many_do_not() {
        for size in [1, 5, 1000] {
            let answers = [
                FINAL.to_vec(),
                [&INTERIM.repeat(MOST), FINAL].concat(),
                FINAL.to_vec(),
                INTERIM.repeat(MOST + 1),
            ];
            assert_eq!(watch(&answers, size), [true, true, true, false], "in pieces of {size}");
        }
        // What looks like heads in a body is none.
        let body = [FINAL, &INTERIM.repeat(50)].concat();
        assert_eq!(watch(&[body.clone(), body], 7), [true, true]);
        // Nor is what follows a change of protocol.
        assert_eq!(
            watch(&[[&b"HTTP/1.1 101 Switching Protocols\r\n\r\n"[..], &INTERIM.repeat(50)].concat()], 7),
            [true]
        );
    }
}
