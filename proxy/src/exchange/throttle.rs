//! A response's body at the speed that a filter decided: a little, a pause, a little more.

use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::message::BodyError;

/// A frame of a body, or its end.
type Next = Option<Result<Frame<Bytes>, BodyError>>;

/// How many times in a second something is sent.
const STEPS: u64 = 20;

/// The speed of one body.
pub(super) struct Throttle {
    per_second: NonZeroU64,
    /// What has come and is not due yet.
    held: Bytes,
    /// When more may go.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Throttle {
    pub(super) fn new(per_second: NonZeroU64) -> Throttle {
        Throttle { per_second, held: Bytes::new(), timer: None }
    }

    /// Whether all that came has gone.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The next piece of what `next` brings, when it is due.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        next: impl FnOnce(&mut Context<'_>) -> Poll<Next>,
    ) -> Poll<Next> {
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(cx));
        }
        if self.held.is_empty() {
            match ready!(next(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(chunk))) => self.held = chunk,
                Some(Ok(Err(frame))) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let step = usize::try_from(self.per_second.get() / STEPS).unwrap_or(usize::MAX).max(1);
        let piece = self.held.split_to(self.held.len().min(step));
        self.pause(piece.len());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    /// So many bytes take their time before the next ones go.
    fn pause(&mut self, bytes: usize) {
        let nanoseconds = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.per_second.get());
        let pause = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        match &mut self.timer {
            // From when they were due: a late wake-up is made up for, a late body is not.
            Some(timer) => {
                let from =
                    timer.deadline().max(Instant::now().checked_sub(pause).unwrap_or(timer.deadline()));
                timer.as_mut().reset(from + pause);
            }
            None => self.timer = Some(Box::pin(sleep_until(Instant::now() + pause))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn bytes_take_their_time_and_none_is_lost() {
        let mut throttle = Throttle::new(NonZeroU64::new(10_000).unwrap());
        let mut chunks =
            vec![Bytes::from(vec![1; 900]), Bytes::new(), Bytes::from(vec![2; 1_100])].into_iter();
        let began = Instant::now();
        let (mut passed, mut largest) = (0, 0);
        while let Some(frame) = poll_fn(|cx| {
            throttle.poll(cx, |_| Poll::Ready(chunks.next().map(|chunk| Ok(Frame::data(chunk)))))
        })
        .await
        {
            let piece = frame.unwrap().into_data().unwrap();
            (passed, largest) = (passed + piece.len(), largest.max(piece.len()));
        }
        assert_eq!((passed, largest), (2_000, 500));
        // The last piece's pause is over, too, when the end is there.
        assert!(began.elapsed() >= Duration::from_millis(200));
    }
}
