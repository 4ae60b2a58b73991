//! ONE TCP connection of a client, joined with one to an endpoint, from its first byte to its last: [`serve`] is the
//! whole way. The sibling of `exchange`; everything here runs on one worker.

mod end;
mod idle;
mod pair;
mod pump;
mod record;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use meshgate_wasm::Connection;

use self::end::End;
use self::idle::Idle;
use self::pair::Pair;
use self::record::Record;
use crate::filter::Side;
use crate::message::proxy_protocol::Addresses;
use crate::snapshot::Listener;
use crate::tls::Transport;

/// Serves one connection, of which `ahead` has been read: the way of a session. Gives the client's socket back if it may still be sending, and should
/// not be closed before it has read the last that was written.
pub async fn serve(
    listener: Rc<Listener>,
    connection: Rc<Connection>,
    client: Transport,
    ahead: Bytes,
) -> Option<Transport> {
    let record = Record::open(listener, connection);
    let mut pair = Pair::new(&record.filters, client);
    let end = match join(&record, &mut pair, ahead).await {
        Ok(last) => End::Over(last),
        Err(end) => end,
    };
    if matches!(end, End::Closed) {
        pair.flush(&record).await;
    }
    record.close(&end);
    pair.close(end.manner())
}

/// Runs the new connection through the filters, connects it with an endpoint, and passes on what both sides send, until
/// both have said all they had to say. Returns who was the last.
async fn join(record: &Record, pair: &mut Pair, ahead: Bytes) -> Result<Side, End> {
    let mut idle = Idle::new(record);
    new_connection(record, pair, &mut idle).await?;
    pair.downstream.push_ahead(record, ahead)?;
    if record.listener.config.wait_for_data {
        first_bytes(record, pair, &mut idle).await?;
    }
    connect(record, pair).await?;
    pass_on(record, pair, &mut idle).await
}

/// Runs the new connection down the chain. Nothing is taken from the client before it is through.
async fn new_connection(record: &Record, pair: &mut Pair, idle: &mut Idle) -> Result<(), End> {
    pair.downstream.flow.begin()?;
    poll_fn(|cx| {
        stopped(record, cx)?;
        if !pair.downstream.flow.is_through() {
            let _ = pair.poll_downstream(record, cx)?;
        }
        if pair.downstream.flow.is_through() { Poll::Ready(Ok(())) } else { idle.poll(record, cx) }
    })
    .await
}

/// Waits until the filters have let something through of what the client sends: they may choose the cluster by it.
async fn first_bytes(record: &Record, pair: &mut Pair, idle: &mut Idle) -> Result<(), End> {
    poll_fn(|cx| {
        stopped(record, cx)?;
        let _ = pair.poll_downstream(record, cx)?;
        if pair.downstream.flow.has_passed() { Poll::Ready(Ok(())) } else { idle.poll(record, cx) }
    })
    .await
}

/// How long a session that ends while it connects waits for what the socket has to say.
const LAST_LOOK: Duration = Duration::from_millis(10);

/// Connects to an endpoint of the cluster that the filters, or the listener, chose. What the client sends meanwhile is
/// taken as far as there is room for it, so that a client that leaves is noticed.
async fn connect(record: &Record, pair: &mut Pair) -> Result<(), End> {
    let upstream = Rc::clone(&record.listener.upstream);
    let cluster = record.cluster()?;
    let client = record.client();
    let key = cluster.key_of_connection(client.source.ip());
    let endpoint = upstream.pick(&cluster, key).map_err(End::Upstream)?;
    record.begin_connecting(&endpoint);
    let mut connecting =
        pin!(upstream.connect(&cluster, &endpoint, Addresses::of(client.source, client.destination)));
    let connected = poll_fn(|cx| {
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            return Poll::Ready(connected.map_err(End::Upstream));
        }
        stopped(record, cx)?;
        let _ = pair.poll_downstream(record, cx)?;
        Poll::Pending
    })
    .await;
    let connected = match connected {
        Ok(connected) => connected,
        Err(end @ End::Upstream(_)) => return Err(end),
        Err(end) => {
            // The endpoint may have accepted the connection before we heard of it, and is to see how the session ended.
            if let Ok(Ok(connected)) = tokio::time::timeout(LAST_LOOK, connecting).await {
                pair.endpoint = Some(connected);
            }
            return Err(end);
        }
    };
    record.connected(&connected);
    pair.endpoint = Some(connected);
    Ok(())
}

/// Passes on what both sides send. What the endpoint sent may make a filter resume what it held of the client's: that wakes this
/// task, which looks at the client's side again.
async fn pass_on(record: &Record, pair: &mut Pair, idle: &mut Idle) -> Result<Side, End> {
    let mut last = Side::Downstream;
    poll_fn(|cx| {
        stopped(record, cx)?;
        let (sent, answered) = (pair.downstream.is_done(), pair.upstream.is_done());
        if !sent && pair.poll_downstream(record, cx)?.is_ready() {
            last = Side::Downstream;
        }
        if !answered && pair.poll_upstream(record, cx)?.is_ready() {
            last = Side::Upstream;
        }
        if !(pair.downstream.is_done() && pair.upstream.is_done()) {
            return idle.poll(record, cx);
        }
        // A client that was not heard to the end did not end it.
        Poll::Ready(Ok(if pair.downstream.source_ended() { last } else { Side::Upstream }))
    })
    .await
}

/// Whether a filter closed the session; if not, this task hears of it.
fn stopped(record: &Record, cx: &Context<'_>) -> Result<(), End> {
    record.filters.park(cx);
    Ok(record.filters.check()?)
}
