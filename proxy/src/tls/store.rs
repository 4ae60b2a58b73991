//! What TLS keeps over reloads. What did not change stays the very same, and with it the sessions that may be taken up
//! again; where a listener's trust did not change, its tickets stay good although certificates were renewed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use meshgate_config::{ClusterTls, ListenerTls};
use rustls::crypto::aws_lc_rs::Ticketer;

use super::client::{self, ClientTls, TlsFailures};
use super::server::{self, ServerTls};
use super::{Held, Refusal};

/// The TLS of all listeners and clusters, by name.
#[derive(Debug, Default)]
pub struct TlsStore {
    servers: HashMap<String, Built<ServerTls>>,
    clients: HashMap<String, Built<ClientTls>>,
    failures: HashMap<String, Arc<TlsFailures>>,
}

/// What was built of one name and is still held by a snapshot: more than one while a reload is under way.
type Built<T> = Vec<Weak<T>>;

impl TlsStore {
    /// A listener's TLS: what it was, if nothing changed.
    ///
    /// # Errors
    /// All that is wrong with the files that it names.
    pub fn server(&mut self, listener: &str, settings: &ListenerTls) -> Result<Arc<ServerTls>, Vec<Refusal>> {
        let materials = server::Materials::read(settings)?;
        let (fingerprint, trust) = (materials.fingerprint(settings), materials.trust(settings));
        let built = self.servers.entry(listener.to_owned()).or_default();
        let running = held(built);
        let files = materials.inventory(settings);
        let same = |known: &&Arc<ServerTls>| {
            known.fingerprint == fingerprint && same_files(known.inventory(), &files)
        };
        if let Some(same) = running.iter().find(same) {
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
        built.push(Arc::downgrade(&server));
        Ok(server)
    }

    /// A cluster's TLS: what it was, if nothing changed.
    ///
    /// # Errors
    /// All that is wrong with the files that it names.
    pub fn client(&mut self, cluster: &str, settings: &ClusterTls) -> Result<Arc<ClientTls>, Vec<Refusal>> {
        let materials = client::Materials::read(settings)?;
        let fingerprint = materials.fingerprint(settings);
        let built = self.clients.entry(cluster.to_owned()).or_default();
        let files = materials.inventory(settings);
        let same = |known: &&Arc<ClientTls>| {
            known.fingerprint == fingerprint && same_files(known.inventory(), &files)
        };
        if let Some(same) = held(built).iter().find(same) {
            return Ok(Arc::clone(same));
        }
        let failures = Arc::clone(self.failures.entry(cluster.to_owned()).or_default());
        let client = ClientTls::build(settings, materials, failures).map_err(|refusal| vec![refusal])?;
        let client = Arc::new(client);
        built.push(Arc::downgrade(&client));
        Ok(client)
    }
}

/// Whether the same certificates come from the same files.
fn same_files(known: &[Held], now: &[Held]) -> bool {
    known.iter().map(|held| &held.file).eq(now.iter().map(|held| &held.file))
}

/// What is still held, the others forgotten.
fn held<T>(built: &mut Built<T>) -> Vec<Arc<T>> {
    built.retain(|known| known.strong_count() > 0);
    built.iter().filter_map(Weak::upgrade).collect()
}
