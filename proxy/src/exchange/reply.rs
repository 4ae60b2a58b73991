//! What an exchange answers with, before the response's filters ran: an endpoint's response, or one of our own.

use http::Response;
use meshgate_wasm::{LocalResponse, RequestHead, ResponseHead};

use super::deadline::Deadline;
use super::error::ExchangeError;
use crate::message::{Body, local_response, response_arrived};
use crate::upstream::{UpstreamBody, UpstreamError, UpstreamErrorKind, UpstreamTunnel};

/// A response on its way to the response's filters.
pub(super) struct Reply {
    pub(super) head: ResponseHead,
    pub(super) body: Body,
    /// What follows the head, if that changes the protocol.
    pub(super) tunnel: Option<UpstreamTunnel>,
    pub(super) deadline: Deadline,
}

impl Reply {
    /// An endpoint's response.
    pub(super) fn upstream(
        response: Response<UpstreamBody>,
        tunnel: Option<UpstreamTunnel>,
        deadline: Deadline,
    ) -> Result<Reply, ExchangeError> {
        let (parts, body) = response.into_parts();
        let (status, mut headers) = (parts.status, parts.headers);
        response_arrived(&mut headers).map_err(|bad| {
            let endpoint = Some(body.endpoint());
            let details = bad.reason.into();
            ExchangeError::Upstream(UpstreamError { kind: UpstreamErrorKind::Protocol, endpoint, details })
        })?;
        Ok(Reply { head: ResponseHead { status, headers }, body: Body::stream(body), tunnel, deadline })
    }

    /// A response of our own, in the form that this request understands.
    pub(super) fn local(request: &RequestHead, response: LocalResponse) -> Reply {
        let (parts, body) = local_response(&request.method, &request.headers, response).into_parts();
        let head = ResponseHead { status: parts.status, headers: parts.headers };
        Reply { head, body, tunnel: None, deadline: Deadline::new(None) }
    }
}
