//! What is kept of an exchange from its head to its entry in the access log.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request,
};
use http_body::{Body as _, Frame};
use meshgate_wasm::{LocalResponse, RequestHead, ResponseHead};

use super::error::{ExchangeError, REQUEST_BODY_TIMEOUT, Verdict};
use super::mirror::Comparison;
use super::reply::Reply;
use super::upgrade::Offer;
use super::{Closed, End};
use crate::filter::{FilterFailure, FilterFault, Stop, Stream, TimeLimit};
use crate::message::forwarding::{X_FORWARDED_FOR, X_REQUEST_ID};
use crate::message::proxy_protocol::Addresses;
use crate::message::{Body, Peer, ResponseFlag, failpoint, grpc, local_response};
use crate::snapshot::Listener;
use crate::telemetry::{AccessRecord, LogFields};
use crate::upstream::{Cluster, Endpoint, Outcome, Queued, UpstreamBody};

/// One exchange. When the last of its two owners (the steps in `serve`, the response's body) lets go, it is over:
/// the filters are told, and it is logged.
pub(super) struct Exchange {
    pub(super) stream: Rc<Stream>,
    pub(super) listener: Rc<Listener>,
    pub(super) offer: Offer,
    arrived: Arrived,
    comparison: OnceCell<Rc<Comparison>>,
    completed: Cell<bool>,
}

/// What an attempt says about its endpoint.
fn outcome(response: &Result<Response<UpstreamBody>, End>, queued: &Queued) -> Option<Outcome> {
    match response {
        Ok(response) => Some(Outcome::of(response.status().as_u16())),
        Err(End::Error(ExchangeError::Timeout | ExchangeError::TryTimeout)) => {
            (!queued.is_waiting()).then_some(Outcome::NoAnswer)
        }
        Err(End::Error(ExchangeError::Upstream(error))) => Outcome::of_failure(error),
        Err(_) => None,
    }
}

/// Where a request goes.
pub(super) enum Destination {
    /// To an endpoint of this cluster, within this time.
    Cluster(Rc<Cluster>, Option<Duration>),
    /// Nowhere: the route answers by itself.
    Direct(LocalResponse),
}

impl Exchange {
    pub(super) fn new(
        listener: Rc<Listener>,
        arrived: Arrived,
        stream: Rc<Stream>,
        offer: Offer,
    ) -> Rc<Exchange> {
        listener.metrics.begin();
        let (comparison, completed) = (OnceCell::new(), Cell::new(false));
        Rc::new(Exchange { stream, listener, offer, arrived, comparison, completed })
    }

    /// What the filters decided, or the listener's default.
    pub(super) fn destination(&self) -> Result<Destination, ExchangeError> {
        let listener = &self.listener;
        failpoint::reach(self.stream.http().borrow().request.path.as_str());
        let (name, limit) = match self.stream.decision() {
            Some(decision) => match decision.direct {
                Some(response) => return Ok(Destination::Direct(response)),
                None => (decision.cluster.name, decision.timeout),
            },
            None => {
                let chosen = self.stream.connection_cluster().or_else(|| listener.cluster.clone());
                (chosen.ok_or(ExchangeError::NoRoute)?, TimeLimit::Default)
            }
        };
        let cluster = listener.clusters.find(&name);
        let cluster = cluster.ok_or_else(|| ExchangeError::NoCluster(name.to_string()))?;
        let attributes = &mut self.stream.http().borrow_mut().attributes;
        attributes.cluster = Some(name);
        attributes.cluster_metadata = cluster.metadata().cloned();
        Ok(Destination::Cluster(cluster, limit.or(listener.config.request_timeout)))
    }

    /// Who connected, and to where, if that has an address.
    pub(super) fn client(&self) -> Option<Addresses> {
        let attributes = &self.stream.http().borrow().attributes;
        Addresses::of(attributes.source, attributes.connection.destination)
    }

    /// How much longer a gRPC client waits, if it said so. Its clock runs since the request's head.
    pub(super) fn client_patience(&self) -> Option<Duration> {
        let http = self.stream.http().borrow();
        let headers = &http.request.headers;
        let patience = if grpc::is_grpc(headers) { grpc::timeout(headers) } else { None };
        patience.map(|patience| patience.saturating_sub(http.attributes.started.elapsed()))
    }

    /// The request's head as it goes upstream. Filters and the access log keep theirs: they read it until the end.
    ///
    /// # Errors
    /// The filters made it too large.
    pub(super) fn request_head(&self) -> Result<RequestHead, ExchangeError> {
        let mut http = self.stream.http().borrow_mut();
        if self.stream.has_filters() {
            let RequestHead { method, authority, path, headers, .. } = &http.request;
            let first_line = method.as_str().len() + authority.len() + path.as_str().len();
            self.check_size(first_line, headers, FilterFault::RequestHeadLimit)?;
            return Ok(http.request.clone());
        }
        if self.listener.access_log.is_on() {
            return Ok(http.request.clone());
        }
        let headers = std::mem::take(&mut http.request.headers);
        Ok(RequestHead { headers, ..http.request.clone() })
    }

    /// The response's head as it goes downstream, as the filters left it. They keep theirs.
    ///
    /// # Errors
    /// The filters made it too large.
    /// This is the status that the client gets.
    pub(super) fn is_answered_by(&self, status: StatusCode) {
        if let Some(response) = &mut self.stream.http().borrow_mut().response {
            response.status = status;
        }
    }

    pub(super) fn response_head(&self) -> Result<ResponseHead, ExchangeError> {
        let mut http = self.stream.http().borrow_mut();
        match &mut http.response {
            Some(response) if self.stream.has_filters() => {
                self.check_size(0, &response.headers, FilterFault::ResponseHeadLimit)?;
                Ok(response.clone())
            }
            Some(response) => {
                Ok(ResponseHead { status: response.status, headers: std::mem::take(&mut response.headers) })
            }
            // Cannot be: `show` put it there, and hostcalls only edit it.
            None => Err(ExchangeError::Internal("the response's head is gone".to_owned())),
        }
    }

    /// A head may grow on its way through the filters.
    fn check_size(
        &self,
        first_line: usize,
        headers: &HeaderMap,
        fault: FilterFault,
    ) -> Result<(), ExchangeError> {
        let config = &self.listener.config;
        let size = |bytes: usize, (name, value): (&HeaderName, &HeaderValue)| {
            bytes + name.as_str().len() + value.len()
        };
        let fits = headers.len() <= config.max_headers.saturating_mul(2)
            && headers.iter().fold(first_line, size) <= config.most_filtered_head_bytes();
        if fits {
            return Ok(());
        }
        Err(ExchangeError::Filter(FilterFailure { filter: Rc::from("on this chain"), fault }))
    }

    /// Whether the client speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.arrived.version == Version::HTTP_2
    }

    /// Shows the filters a response.
    pub(super) fn show(&self, head: ResponseHead) {
        self.stream.http().borrow_mut().response = Some(head);
    }

    /// Takes the fields of the response back that the filters were shown.
    pub(super) fn take_shown(&self) -> Option<HeaderMap> {
        self.stream.http().borrow_mut().response.take().map(|head| head.headers)
    }

    /// The request is sent, and when.
    pub(super) fn begin_attempt(&self, cluster: &Cluster, endpoint: &Endpoint) -> Instant {
        let attributes = &mut self.stream.http().borrow_mut().attributes;
        attributes.attempts += 1;
        endpoint.show(attributes);
        attributes.upstream_endpoints = Some(cluster.endpoints().len() as u64);
        attributes.upstream_failure = None;
        Instant::now()
    }

    /// An endpoint that wants to know for whom connections are made is told with the request.
    pub(super) fn introduce_client(&self, cluster: &Cluster, request: &mut Request<Body>) {
        if cluster.tells_clients()
            && let Some(client) = self.client()
        {
            request.extensions_mut().insert(client);
        }
    }

    pub(super) fn end_attempt(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        (sent, queued): (Instant, &Queued),
        response: &Result<Response<UpstreamBody>, End>,
    ) {
        let latency = sent.elapsed();
        if let Some(outcome) = outcome(response, queued) {
            cluster.report(endpoint, outcome, latency);
        }
        let mut http = self.stream.http().borrow_mut();
        let attributes = &mut http.attributes;
        attributes.backend_latency = Some(latency);
        // Others may have begun since.
        endpoint.show(attributes);
        match response {
            Ok(response) => {
                attributes.upstream_local_address = response.body().local_address();
                attributes.upstream_ready_after = Some(response.body().ready_after());
                attributes.upstream_tls = response.body().tls().cloned();
                attributes.response_code_details = Some("via_upstream".into());
            }
            Err(End::Error(ExchangeError::Upstream(error))) if error.nothing_sent() => {
                attributes.upstream_failure = Some(error.details.clone());
            }
            Err(_) => {}
        }
    }

    /// The key by which the cluster's load balancer chooses the request's endpoint, if it goes by one.
    pub(super) fn key(&self, cluster: &Cluster) -> Option<u64> {
        let extras = self.stream.extras();
        if let Some(extras) = extras.filter(|extras| !extras.hash_key.is_empty()) {
            return cluster.key_of(&extras.hash_key);
        }
        let http = self.stream.http().borrow();
        cluster.key(&http.request, http.attributes.source.ip())
    }

    /// How long it may take.
    pub(super) fn time_limit(&self) -> Option<Duration> {
        let limit = self.stream.decision().map_or(TimeLimit::Default, |decision| decision.timeout);
        limit.or(self.listener.config.request_timeout)
    }

    /// The endpoint's answer is to be compared.
    pub(super) fn compare_with(&self, comparison: Rc<Comparison>) {
        let _ = self.comparison.set(comparison);
    }

    /// The endpoint has answered with this status.
    pub(super) fn compare(&self, status: StatusCode) {
        if let Some(comparison) = self.comparison.get() {
            comparison.endpoint(&self.listener, status);
        }
    }

    /// Tells an endpoint its own name, if the route says so and it has one.
    pub(super) fn address_to(&self, endpoint: &Endpoint, request: &mut Request<Body>) {
        if let Some(authority) = endpoint.authority()
            && self.stream.extras().is_some_and(|extras| extras.endpoint_authority)
        {
            request.headers_mut().insert(header::HOST, authority.clone());
        }
    }

    /// Adds to a response what the route says.
    pub(super) fn add_decided(&self, head: &mut ResponseHead) {
        let Some(extras) = self.stream.extras() else { return };
        for (name, value) in &extras.response_headers {
            head.headers.append(name, value.clone());
        }
    }

    /// The response that takes the place of an endpoint's.
    pub(super) fn instead(&self, end: End) -> Result<Reply, Closed> {
        let error = match end {
            End::Stop(Stop::Responded) => {
                let mut http = self.stream.http().borrow_mut();
                // The filters that this answer runs up through may answer in their turn, as to an endpoint's response.
                http.answered = false;
                let response = http.local_response.take();
                drop(http);
                match response {
                    Some(response) => return Ok(self.local_reply(response)),
                    None => ExchangeError::Internal("a filter's answer is gone".to_owned()),
                }
            }
            End::Stop(Stop::Closed) => ExchangeError::Closed,
            End::Stop(Stop::Failed(failure)) => ExchangeError::Filter(failure),
            End::Error(error) => error,
        };
        self.stream.take_failure();
        self.note(&error);
        if matches!(error, ExchangeError::Closed) {
            self.complete();
            return Err(Closed);
        }
        Ok(self.local_reply(error.response()))
    }

    /// A response of our own.
    pub(super) fn local_reply(&self, response: LocalResponse) -> Reply {
        let mut http = self.stream.http().borrow_mut();
        http.attributes.response_code_details = Some(response.details.clone());
        Reply::local(&http.request, response)
    }

    /// Notes why the exchange failed.
    pub(super) fn note(&self, error: &ExchangeError) {
        let Verdict { fault, flag, details, .. } = error.verdict();
        tracing::debug!(listener = %self.listener.name, ?fault, %error, "exchange failed");
        if details == REQUEST_BODY_TIMEOUT {
            self.listener.metrics.slow_body();
        }
        match flag {
            Some(flag) => self.flag(flag, details),
            None => self.stream.http().borrow_mut().attributes.response_code_details = Some(details.into()),
        }
    }

    /// Notes a response flag, and why.
    pub(super) fn flag(&self, flag: ResponseFlag, details: &'static str) {
        let mut http = self.stream.http().borrow_mut();
        http.attributes.response_flags |= flag.bit();
        http.attributes.response_code_details = Some(details.into());
    }

    /// Counts what goes to the client, and keeps an endpoint's trailers for the filters' log callbacks.
    pub(super) fn sent(&self, frame: &Frame<Bytes>) {
        let mut http = self.stream.http().borrow_mut();
        if let Some(chunk) = frame.data_ref() {
            http.attributes.response_bytes += chunk.len() as u64;
        } else if let Some(trailers) = frame.trailers_ref()
            && http.response_trailers.is_none()
        {
            http.response_trailers = Some(trailers.clone());
        }
    }

    /// Bytes came from the client after the heads.
    pub(super) fn count_received(&self, bytes: usize) {
        self.stream.http().borrow_mut().attributes.request_bytes += bytes as u64;
    }

    /// Bytes came from the endpoint after the heads.
    pub(super) fn count_sent(&self, bytes: usize) {
        self.stream.http().borrow_mut().attributes.response_bytes += bytes as u64;
    }

    /// Whether its end is known.
    pub(super) fn is_complete(&self) -> bool {
        self.completed.get()
    }

    /// The response came to its end, good or bad: what follows is not the client's leaving.
    pub(super) fn complete(&self) {
        self.completed.set(true);
    }

    fn log(&self) {
        let http = self.stream.http().borrow();
        let (request, attributes) = (&http.request, &http.attributes);
        let value = |name: &HeaderName| request.headers.get(name).map(HeaderValue::as_bytes);
        self.listener.access_log.write(&AccessRecord {
            start: attributes.start,
            method: self.arrived.method.as_str(),
            path: self.arrived.path(),
            protocol: protocol(self.arrived.version),
            status: http.response.as_ref().map_or(0, |response| response.status.as_u16()),
            flags: &ResponseFlag::text(attributes.response_flags),
            details: attributes.response_code_details.as_deref().unwrap_or_default(),
            bytes_received: attributes.request_bytes,
            bytes_sent: attributes.response_bytes,
            duration: attributes.duration.unwrap_or_default(),
            upstream_time: attributes.backend_latency,
            forwarded_for: value(&X_FORWARDED_FOR),
            user_agent: value(&header::USER_AGENT),
            request_id: value(&X_REQUEST_ID),
            authority: Some(request.authority.as_bytes()),
            server_name: attributes.connection.tls.as_ref().and_then(|tls| tls.server_name.as_deref()),
            upstream_address: attributes.upstream_address,
            upstream_failure: attributes.upstream_failure.as_deref(),
            cluster: attributes.cluster.as_deref(),
            route: attributes.route.as_deref(),
            downstream_address: attributes.source,
            listener: &self.listener.name,
            fields: &self.stream.log_fields(),
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.completed.get() {
            self.flag(ResponseFlag::DownstreamTermination, "downstream_remote_disconnect");
        }
        {
            let attributes = &mut self.stream.http().borrow_mut().attributes;
            attributes.duration = Some(attributes.started.elapsed());
        }
        self.stream.finish();
        if self.listener.access_log.is_on() {
            self.log();
        }
        let http = self.stream.http().borrow();
        let status = http.response.as_ref().map_or(0, |response| response.status.as_u16());
        self.listener.metrics.end(status, &ResponseFlag::text(http.attributes.response_flags));
    }
}

/// What is kept of a head as it arrived, for the access log: checks may refuse it, and filters may change it.
pub(super) struct Arrived {
    method: Method,
    uri: Uri,
    version: Version,
}

impl Arrived {
    pub(super) fn of(parts: &request::Parts) -> Arrived {
        Arrived { method: parts.method.clone(), uri: parts.uri.clone(), version: parts.version }
    }

    /// Path and query as the client sent them.
    fn path(&self) -> &[u8] {
        self.uri.path_and_query().map_or(b"", |path| path.as_str().as_bytes())
    }

    /// Answers and logs a request whose head is not acceptable, or that is not to be served now. No filter sees it.
    pub(super) fn reject(
        &self,
        listener: &Listener,
        peer: &Peer,
        error: &ExchangeError,
        headers: &HeaderMap,
    ) -> Response<Body> {
        let Verdict { flag, details, .. } = error.verdict();
        let mut response = local_response(&self.method, headers, error.response());
        let status = response.status().as_u16();
        let flags = flag.map_or("", ResponseFlag::letters);
        listener.metrics.begin();
        listener.metrics.end(status, flags);
        tracing::debug!(listener = %listener.name, %error, "request refused");
        if listener.access_log.is_on() {
            listener.access_log.write(&AccessRecord {
                start: SystemTime::now(),
                method: self.method.as_str(),
                path: self.path(),
                protocol: protocol(self.version),
                status,
                flags,
                details,
                bytes_received: 0,
                bytes_sent: response.body().size_hint().exact().unwrap_or(0),
                duration: Duration::ZERO,
                upstream_time: None,
                forwarded_for: None,
                user_agent: None,
                request_id: None,
                authority: None,
                server_name: peer.connection.tls.as_ref().and_then(|tls| tls.server_name.as_deref()),
                upstream_address: None,
                upstream_failure: None,
                cluster: None,
                route: None,
                downstream_address: listener.forwarding.client(headers, peer),
                listener: &listener.name,
                fields: LogFields::NONE,
            });
        }
        if self.version < Version::HTTP_2 && matches!(error, ExchangeError::Head(_)) {
            // Where this message ends and the next begins may be what is wrong with it.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}
