//! What is kept of a session from its beginning to its line in the access log.

use std::cell::Cell;
use std::rc::Rc;

use meshgate_wasm::{Attributes, Connection};
use tokio::time::Instant;

use super::end::End;
use crate::filter::{Session, SessionParts};
use crate::message::ResponseFlag;
use crate::snapshot::Listener;
use crate::telemetry::AccessRecord;
use crate::upstream::{Cluster, Endpoint, TcpConnection};

/// One session. When it is closed, or dropped with the process, the filters are told, and it is logged.
pub(super) struct Record {
    pub(super) listener: Rc<Listener>,
    pub(super) filters: Rc<Session>,
    last_passed: Cell<Instant>,
    closed: Cell<bool>,
}

impl Record {
    pub(super) fn open(listener: Rc<Listener>, connection: Rc<Connection>) -> Record {
        let mut attributes = Attributes::new(connection);
        attributes.listener.clone_from(&listener.facts);
        let filters = Session::new(SessionParts {
            attributes,
            chain: Rc::clone(&listener.chain),
            clusters: Rc::clone(&listener.targets),
        });
        Record { listener, filters, last_passed: Cell::new(Instant::now()), closed: Cell::new(false) }
    }

    /// Where the session goes: what a filter chose, or what the server name stands for, or the listener's default.
    pub(super) fn cluster(&self) -> Result<Rc<Cluster>, End> {
        let listener = &self.listener;
        let by_name = || listener.server_names.find(Some(&self.server_name()?)).cloned();
        let name = self.filters.cluster().or_else(by_name).or_else(|| listener.cluster.clone());
        let name = name.ok_or(End::NoRoute)?;
        let cluster = listener.clusters.find(&name).ok_or(End::NoCluster)?;
        let mut attributes = self.filters.attributes().borrow_mut();
        attributes.cluster = Some(name);
        attributes.cluster_metadata = cluster.metadata().cloned();
        attributes.upstream_endpoints = Some(cluster.endpoints().len() as u64);
        drop(attributes);
        Ok(cluster)
    }

    /// The server that the client asked for by TLS, ours or not.
    fn server_name(&self) -> Option<Rc<str>> {
        self.filters.attributes().borrow().connection.tls.as_ref()?.server_name.clone()
    }

    /// The client's connection.
    pub(super) fn client(&self) -> Rc<Connection> {
        Rc::clone(&self.filters.attributes().borrow().connection)
    }

    pub(super) fn begin_connecting(&self, endpoint: &Endpoint) {
        let mut attributes = self.filters.attributes().borrow_mut();
        attributes.attempts += 1;
        endpoint.show(&mut attributes);
    }

    pub(super) fn connected(&self, connection: &TcpConnection) {
        let mut attributes = self.filters.attributes().borrow_mut();
        attributes.upstream_local_address = connection.local_address();
        attributes.upstream_tls = connection.tls().cloned();
        drop(attributes);
        self.filters.connected();
    }

    /// Bytes passed a socket, in either direction.
    pub(super) fn passed(&self) {
        self.last_passed.set(Instant::now());
    }

    /// When bytes passed last.
    pub(super) fn last_passed(&self) -> Instant {
        self.last_passed.get()
    }

    /// Bytes came from the client.
    pub(super) fn received(&self, bytes: usize) {
        self.filters.attributes().borrow_mut().request_bytes += bytes as u64;
        if let Some(tcp) = &self.listener.tcp {
            tcp.received(bytes as u64);
        }
    }

    /// Bytes went to the client.
    pub(super) fn sent(&self, bytes: usize) {
        self.filters.attributes().borrow_mut().response_bytes += bytes as u64;
        if let Some(tcp) = &self.listener.tcp {
            tcp.sent(bytes as u64);
        }
    }

    /// The client had said all it had to say, and did not wait for the answer.
    pub(super) fn client_left(&self) {
        let flag = ResponseFlag::DownstreamTermination;
        self.filters.attributes().borrow_mut().response_flags |= flag.bit();
    }

    /// The session is over: tells the filters, writes the log, counts.
    pub(super) fn close(&self, end: &End) {
        if self.closed.replace(true) {
            return;
        }
        tracing::debug!(listener = %self.listener.name, %end, "TCP connection ended");
        let (flag, details) = end.verdict();
        {
            let mut attributes = self.filters.attributes().borrow_mut();
            attributes.response_flags |= flag.map_or(0, ResponseFlag::bit);
            attributes.response_code_details = Some(details.into());
            if let End::Upstream(error) = end {
                attributes.upstream_failure = Some(error.details.clone());
            }
            attributes.duration = Some(attributes.started.elapsed());
        }
        let (downstream, upstream) = end.peers();
        self.filters.finish(downstream, upstream);
        let attributes = self.filters.attributes().borrow();
        let flags = ResponseFlag::text(attributes.response_flags);
        if self.listener.access_log.is_on() {
            self.log(&attributes, &flags, details);
        }
        if let Some(tcp) = &self.listener.tcp {
            tcp.end(&flags);
        }
    }

    fn log(&self, attributes: &Attributes, flags: &str, details: &str) {
        self.listener.access_log.write(&AccessRecord {
            start: attributes.start,
            method: "",
            path: b"",
            protocol: "TCP",
            status: 0,
            flags,
            details,
            bytes_received: attributes.request_bytes,
            bytes_sent: attributes.response_bytes,
            duration: attributes.duration.unwrap_or_default(),
            upstream_time: None,
            forwarded_for: None,
            user_agent: None,
            request_id: None,
            authority: None,
            server_name: attributes.connection.tls.as_ref().and_then(|tls| tls.server_name.as_deref()),
            upstream_address: attributes.upstream_address,
            upstream_failure: attributes.upstream_failure.as_deref(),
            cluster: attributes.cluster.as_deref(),
            route: attributes.route.as_deref(),
            downstream_address: attributes.connection.source,
            listener: &self.listener.name,
            fields: &self.filters.log_fields(),
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.close(&End::Cut);
    }
}
