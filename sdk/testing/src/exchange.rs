//! An exchange as the host sees it, with what a test says of it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use meshgate_abi::{Attempts, Retry, RouteDecision};
use meshgate_sdk::testing::{Client, Fields, Request, Response, Said};
use meshgate_wasm::{Attributes, Certificate, Connection, Exchange, HttpStream, Tls};

use crate::convert;

/// One exchange, or one TCP connection.
pub(crate) struct Running {
    of: Of,
    direct: RefCell<Option<Response>>,
    added: RefCell<Fields>,
    attempts: RefCell<Option<Attempts>>,
    asked: Cell<bool>,
    retry: RefCell<Option<Retry>>,
    said: RefCell<Said>,
}

enum Of {
    Http(Box<RefCell<HttpStream>>),
    Tcp(Box<RefCell<Attributes>>),
}

impl Running {
    pub(crate) fn new(request: &Request, now: SystemTime) -> Self {
        let attributes = attributes(request.facts(), now);
        let http = HttpStream::new(convert::request_head(request.head()), attributes);
        let running = Self::of(Of::Http(Box::new(RefCell::new(http))));
        running.said.borrow_mut().trace = request.trace();
        running
    }

    pub(crate) fn connected(client: &Client, now: SystemTime) -> Self {
        let attributes = attributes(client.facts(), now);
        Self::of(Of::Tcp(Box::new(RefCell::new(attributes))))
    }

    fn of(of: Of) -> Self {
        Self {
            of,
            direct: RefCell::default(),
            added: RefCell::default(),
            attempts: RefCell::default(),
            asked: Cell::new(false),
            retry: RefCell::default(),
            said: RefCell::default(),
        }
    }

    /// Changes what is known.
    fn note(&self, note: impl FnOnce(&mut Attributes)) {
        match &self.of {
            Of::Http(http) => note(&mut http.borrow_mut().attributes),
            Of::Tcp(attributes) => note(&mut attributes.borrow_mut()),
        }
    }

    /// The cluster that was decided for.
    pub(crate) fn cluster(&self) -> Option<String> {
        let mut cluster = None;
        self.note(|attributes| cluster = attributes.cluster.as_deref().map(str::to_owned));
        cluster
    }

    /// The messages; none of a connection.
    pub(crate) fn http(&self) -> Option<&RefCell<HttpStream>> {
        match &self.of {
            Of::Http(http) => Some(http),
            Of::Tcp(_) => None,
        }
    }

    /// What the filter said of it beside its messages.
    pub(crate) fn said(&self) -> &RefCell<Said> {
        &self.said
    }

    /// The answer that was decided for.
    pub(crate) fn direct(&self) -> Option<Response> {
        self.direct.borrow().clone()
    }

    /// The fields that were decided to be added to the response.
    pub(crate) fn added(&self) -> Fields {
        self.added.borrow().clone()
    }

    pub(crate) fn decide(&self, decision: &RouteDecision) {
        self.direct.replace(decision.direct.as_ref().map(convert::direct));
        let added = decision.response_headers.iter();
        self.added.replace(added.map(|header| (header.name.clone(), header.value.clone())).collect());
        self.note(|attributes| {
            attributes.route = Some(decision.route.as_str().into());
            attributes.cluster = (!decision.cluster.is_empty()).then(|| decision.cluster.as_str().into());
        });
    }

    /// The filter judges the tries.
    pub(crate) fn watch(&self, attempts: Attempts) {
        self.attempts.replace(Some(attempts));
    }

    /// What it wants of them.
    pub(crate) fn attempts(&self) -> Option<Attempts> {
        self.attempts.borrow().clone()
    }

    /// It is asked about one, in `ask`: what it answers.
    pub(crate) fn verdict(&self, ask: impl FnOnce()) -> Option<Retry> {
        self.retry.replace(None);
        self.asked.set(true);
        ask();
        self.asked.set(false);
        self.retry.take()
    }

    /// It answers; false if nobody asked.
    pub(crate) fn answer(&self, retry: Retry) -> bool {
        self.retry.replace(Some(retry));
        self.asked.get()
    }

    /// The exchange is over.
    pub(crate) fn end(&self, now: SystemTime) {
        self.note(|attributes| attributes.duration = now.duration_since(attributes.start).ok());
    }
}

impl Exchange for Running {
    fn http(&self) -> Option<&RefCell<HttpStream>> {
        self.http()
    }

    fn tcp(&self) -> Option<&RefCell<Attributes>> {
        match &self.of {
            Of::Http(_) => None,
            Of::Tcp(attributes) => Some(attributes),
        }
    }

    fn wake(&self) {}

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What is known beside the messages.
fn attributes(facts: &[(String, Vec<u8>)], now: SystemTime) -> Attributes {
    let (mut source, destination) = (address(1234), address(80));
    let mut tls = None;
    let mut others = Vec::new();
    for (path, value) in facts {
        let text = String::from_utf8_lossy(value);
        match path.as_str() {
            "source/address" => source = text.parse().unwrap_or(source),
            "connection/uri_san_peer_certificate" => {
                let peer = Certificate { uri_san: Some(text.as_ref().into()), ..Certificate::default() };
                tls = Some(Tls { version: Some("TLSv1.3"), peer: Some(Arc::new(peer)), ..Tls::default() });
            }
            // Follows from the certificate.
            "connection/mtls" => {}
            _ => others.push((path.replace('/', "\0"), value.clone())),
        }
    }
    let connection = Connection { tls, ..Connection::cleartext(1, source, destination) };
    let mut attributes = Attributes::new(Rc::new(connection));
    attributes.start = now;
    for (path, value) in others {
        attributes.custom.set(path.as_bytes(), value.as_ref());
    }
    attributes
}

/// An address that is nobody's.
fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), port).into()
}
