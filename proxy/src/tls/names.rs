//! Which certificate a client gets, by the server name that it asks for.

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

/// The certificates of a listener by name.
#[derive(Debug, Default)]
pub(super) struct Names {
    exact: HashMap<Box<str>, Shown>,
    /// By what follows `*.`: one label more, and not less.
    below: HashMap<Box<str>, Shown>,
    /// For clients that ask for another name, or for none.
    default: Option<Shown>,
}

impl Names {
    pub(super) fn set_default(&mut self, shown: Shown) {
        self.default = Some(shown);
    }

    /// Has a certificate shown for a name; false if the name is taken.
    pub(super) fn add(&mut self, name: &str, shown: &Shown) -> bool {
        let name = name.to_ascii_lowercase();
        let (map, name) = match name.strip_prefix("*.") {
            Some(rest) => (&mut self.below, rest),
            None => (&mut self.exact, name.as_str()),
        };
        map.insert(name.into(), shown.clone()).is_none()
    }

    /// The certificate for a name. An exact name wins over a wildcard.
    pub(super) fn find(&self, name: Option<&str>) -> Option<&Shown> {
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

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()).map(|shown| Arc::clone(&shown.key))
    }
}
