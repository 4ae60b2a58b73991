//! Copies of requests for clusters whose answers nobody waits for. Used by `exchange` for a route's mirrors.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;

use super::attempt::Attempt;
use super::cluster::Cluster;
use super::error::UpstreamErrorKind;
use super::send::{Upstream, UpstreamBody};
use crate::message::Body;

/// Bytes of an answer that are read, so that its connection can be used again. What is longer is cut off.
const MOST_READ: usize = 256 << 10;

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// It was answered with this status.
    Answered(StatusCode),
    /// There was no answer, or none in time.
    Failed,
    /// The cluster has no endpoint, or is at its limits: nothing was sent.
    Refused,
}

/// Sends a copy to an endpoint of a cluster, within this time, and reads the answer to nobody.
pub async fn send_copy(
    upstream: &Upstream,
    cluster: &Cluster,
    request: Request<Body>,
    time: Duration,
    answered: impl FnOnce(Copied),
) {
    let attempt = Attempt::default();
    let mut answered = Some(answered);
    let mut tell = |copied| answered.take().into_iter().for_each(|answered| answered(copied));
    let copy = async {
        match upstream.send_over(cluster.protocol(), cluster, request, &attempt).await {
            Ok(response) => {
                tell(Copied::Answered(response.status()));
                read(response.into_body()).await;
            }
            Err(error) => tell(match error.kind {
                UpstreamErrorKind::NoEndpoint | UpstreamErrorKind::Overflow => Copied::Refused,
                _ => Copied::Failed,
            }),
        }
    };
    if tokio::time::timeout(time, copy).await.is_err() {
        attempt.is_late(cluster);
        // Heard by nobody if the answer has begun.
        tell(Copied::Failed);
    }
}

async fn read(mut body: UpstreamBody) {
    let mut left = MOST_READ;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
