//! What a client gets by the server name that it asks for: a certificate, or a cluster.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use meshgate_wasm::Certificate;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate that can be shown.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) certificate: Arc<Certificate>,
    /// Its URIs.
    pub(super) uris: Arc<[String]>,
}

/// Something by name of a server.
#[derive(Debug)]
pub struct Names<T> {
    exact: HashMap<Box<str>, T>,
    /// By what follows `*.`: one label more, and not less.
    below: HashMap<Box<str>, T>,
    /// For clients that ask for another name, or for none.
    default: Option<T>,
}

impl<T> Default for Names<T> {
    fn default() -> Names<T> {
        Names { exact: HashMap::new(), below: HashMap::new(), default: None }
    }
}

impl<T> Names<T> {
    /// Has clients get this that ask for no name, or for one that nothing is for.
    pub fn set_default(&mut self, of_others: T) {
        self.default = Some(of_others);
    }

    /// Has something a name, or all names with one label more than what follows `*.`; false if the name is taken.
    pub fn add(&mut self, name: &str, named: T) -> bool {
        let name = name.to_ascii_lowercase();
        let (map, name) = match name.strip_prefix("*.") {
            Some(rest) => (&mut self.below, rest),
            None => (&mut self.exact, name.as_str()),
        };
        map.insert(name.into(), named).is_none()
    }

    /// What a name stands for. An exact name wins over a wildcard.
    pub fn find(&self, name: Option<&str>) -> Option<&T> {
        let known = name.and_then(|name| {
            let name = match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                true => Cow::Owned(name.to_ascii_lowercase()),
                false => Cow::Borrowed(name),
            };
            let name = name.strip_suffix('.').unwrap_or(&name);
            let parent = || self.below.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(parent)
        });
        known.or(self.default.as_ref())
    }
}

impl ResolvesServerCert for Names<Shown> {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()).map(|shown| Arc::clone(&shown.key))
    }
}
