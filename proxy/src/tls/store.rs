//! What TLS keeps over reloads. What did not change stays the very same, and with it the sessions that clients may take
//! up again; where the trust did not change, the tickets stay good although certificates were renewed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use meshgate_config::ListenerTls;
use rustls::crypto::aws_lc_rs::Ticketer;

use super::server::Materials;
use super::{Refusal, ServerTls};

/// The TLS of all listeners, by name.
#[derive(Debug, Default)]
pub struct TlsStore {
    /// What was built and is still held by a snapshot. More than one while a reload is under way.
    servers: HashMap<String, Vec<Weak<ServerTls>>>,
}

impl TlsStore {
    /// A listener's TLS: what it was, if nothing changed.
    ///
    /// # Errors
    /// All that is wrong with the files that it names.
    pub fn server(&mut self, listener: &str, settings: &ListenerTls) -> Result<Arc<ServerTls>, Vec<Refusal>> {
        let materials = Materials::read(settings)?;
        let (fingerprint, trust) = (materials.fingerprint(settings), materials.trust(settings));
        let known = self.servers.entry(listener.to_owned()).or_default();
        known.retain(|known| known.strong_count() > 0);
        let running: Vec<Arc<ServerTls>> = known.iter().filter_map(Weak::upgrade).collect();
        if let Some(same) = running.iter().find(|known| known.fingerprint == fingerprint) {
            return Ok(Arc::clone(same));
        }
        let tickets = match running.iter().find(|known| known.trust == trust) {
            Some(trusting) => Arc::clone(&trusting.tickets),
            None => Ticketer::new().map_err(|error| {
                let at = settings.certificates.first().map(|first| first.certificate.at);
                vec![Refusal::new(at.unwrap_or_default(), format!("TLS cannot be set up: {error}"))]
            })?,
        };
        let server = Arc::new(ServerTls::build(settings, materials, tickets)?);
        known.push(Arc::downgrade(&server));
        Ok(server)
    }
}
