//! The two sockets of a session and what flows between them.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::end::{End, Manner};
use super::pump::{Break, Pump};
use super::record::Record;
use crate::filter::{Flow, Session, Side};
use crate::tls::Transport;
use crate::upstream::TcpConnection;

/// How long what a filter let through may take to be written after the filter closed the session.
const FLUSH: Duration = Duration::from_secs(5);

/// A client's connection, the endpoint's, once there is one, and both directions between them.
pub(super) struct Pair {
    client: Transport,
    pub(super) endpoint: Option<TcpConnection>,
    /// From the client to the endpoint.
    pub(super) downstream: Pump,
    /// From the endpoint to the client.
    pub(super) upstream: Pump,
}

impl Pair {
    pub(super) fn new(filters: &Rc<Session>, client: Transport) -> Pair {
        Pair {
            client,
            endpoint: None,
            downstream: Pump::new(Flow::downstream(filters), Side::Downstream),
            upstream: Pump::new(Flow::upstream(filters), Side::Upstream),
        }
    }

    /// Passes on what the client sends. Ready when there is nothing more to pass on, or nobody to take it.
    pub(super) fn poll_downstream(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        let sink = self.endpoint.as_mut().map(TcpConnection::transport);
        match self.downstream.poll(record, &mut self.client, sink, cx) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(Break::Stop(stop))) => Err(stop.into()),
            Poll::Ready(Err(Break::Source(error))) => Err(End::Aborted(Side::Downstream, error)),
            Poll::Ready(Err(Break::Sink(error))) => {
                // The endpoint is gone. The client still gets all it said; if that was not its last word, it was broken off.
                self.downstream.abandon();
                if !self.upstream.source_ended() {
                    self.upstream.source_is_gone(error);
                }
                Ok(Poll::Ready(()))
            }
        }
    }

    /// Passes on what the endpoint sends, likewise.
    pub(super) fn poll_upstream(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        let Some(endpoint) = &mut self.endpoint else { return Ok(Poll::Pending) };
        match self.upstream.poll(record, endpoint.transport(), Some(&mut self.client), cx) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(Break::Stop(stop))) => Err(stop.into()),
            Poll::Ready(Err(Break::Source(error))) => Err(End::Aborted(Side::Upstream, error)),
            Poll::Ready(Err(Break::Sink(error))) => {
                self.upstream.abandon();
                if self.downstream.source_ended() {
                    record.client_left();
                } else {
                    self.downstream.source_is_gone(error);
                }
                Ok(Poll::Ready(()))
            }
        }
    }

    /// Writes what the filters let through, as far as the sides take it in time, and ends both directions.
    pub(super) async fn flush(&mut self, record: &Record) {
        let Pair { client, endpoint, downstream, upstream } = self;
        let flushed = poll_fn(|cx| {
            let to_endpoint = match endpoint {
                Some(endpoint) => downstream.poll_flush(record, endpoint.transport(), cx),
                None => Poll::Ready(Ok(())),
            };
            match (upstream.poll_flush(record, client, cx), to_endpoint) {
                // A side that is gone needs nothing more; the other still may.
                (Poll::Ready(_), Poll::Ready(_)) => Poll::Ready(()),
                _ => Poll::Pending,
            }
        });
        // The session ends either way.
        let _ = tokio::time::timeout(FLUSH, flushed).await;
    }

    /// Closes both sockets; gives the client's back if that is to be closed with patience.
    pub(super) fn close(mut self, manner: Manner) -> Option<Transport> {
        match manner {
            Manner::Orderly => None,
            Manner::Lingering => Some(self.client),
            Manner::Reset => {
                self.client.socket().break_off();
                if let Some(endpoint) = &mut self.endpoint {
                    endpoint.transport().socket().break_off();
                }
                None
            }
        }
    }
}
