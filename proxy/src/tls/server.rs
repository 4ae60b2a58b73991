//! A listener's side of TLS: its certificates, what it asks of clients, and what a finished handshake settled.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use meshgate_config::{ListenerTls, UnknownNames};
use meshgate_wasm::Tls;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, ServerConnection, SignatureScheme,
};
use sha2::{Digest, Sha256};

use super::fingerprint::{Fingerprint, absorb};
use super::forward::Forward;
use super::identity::Identities;
use super::inventory::Held;
use super::names::{Names, Shown};
use super::pair::Pair;
use super::{Facts, Refusal, files, provider, version_name, versions};
use crate::message::ForwardedCertificate;

/// What a listener's configuration makes, with what is in the files that it names.
pub struct ServerTls {
    config: Arc<ServerConfig>,
    names: Arc<Names<Shown>>,
    forward: Forward,
    match_authority: bool,
    permissive: bool,
    inventory: Vec<Held>,
    /// Of everything it was made from.
    pub(super) fingerprint: Fingerprint,
    /// Of what decides whom it trusts.
    pub(super) trust: Fingerprint,
    /// What resumption rests on.
    pub(super) tickets: Arc<dyn ProducesTickets>,
}

/// What a handshake settled.
#[derive(Debug)]
pub struct Settled {
    /// What filters may know of it.
    pub tls: Tls,
    /// The server name that requests must be for; none if they may be for any.
    pub authority: Option<Rc<str>>,
    /// What is said of the client's certificate in its requests; none if nothing.
    pub forwarded: Option<ForwardedCertificate>,
}

/// The files of a listener, read.
pub(super) struct Materials {
    pairs: Vec<Pair>,
    roots: Option<(RootCertStore, Vec<CertificateDer<'static>>)>,
}

impl Materials {
    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub(super) fn read(settings: &ListenerTls) -> Result<Materials, Vec<Refusal>> {
        let mut refusals = Vec::new();
        let pairs = settings.certificates.iter();
        let pairs =
            pairs.filter_map(|files| Pair::read(files).map_err(|refusal| refusals.push(refusal)).ok());
        let pairs: Vec<Pair> = pairs.collect();
        let roots = settings.clients.as_ref().map(|clients| files::roots(&clients.ca)).transpose();
        match roots {
            Ok(roots) if refusals.is_empty() => Ok(Materials { pairs, roots }),
            Ok(_) => Err(refusals),
            Err(refusal) => {
                refusals.push(refusal);
                Err(refusals)
            }
        }
    }

    pub(super) fn inventory(&self, settings: &ListenerTls) -> Vec<Held> {
        let own = settings.certificates.iter().zip(&self.pairs);
        let own = own.map(|(files, pair)| Held::own(&files.certificate, pair));
        let roots = settings.clients.iter().zip(&self.roots);
        own.chain(roots.flat_map(|(clients, (_, roots))| Held::roots(&clients.ca, roots))).collect()
    }

    /// Of these files with these settings. A key needs no part in it: its certificate says which it is.
    pub(super) fn fingerprint(&self, settings: &ListenerTls) -> Fingerprint {
        let mut hasher = Sha256::new();
        hasher.update(self.trust(settings));
        for (pair, files) in self.pairs.iter().zip(&settings.certificates) {
            for certificate in &pair.key.cert {
                absorb(&mut hasher, certificate);
            }
            absorb(&mut hasher, format!("{:?}", files.names).as_bytes());
        }
        absorb(&mut hasher, format!("{:?} {:?}", settings.alpn, settings.unknown_names).as_bytes());
        let clients = settings.clients.as_ref();
        let forward =
            clients.map(|clients| (clients.match_authority, clients.forward, &clients.forward_details));
        absorb(&mut hasher, format!("{forward:?} {}", settings.permissive).as_bytes());
        hasher.finalize().into()
    }

    /// Of what decides who gets in: a session that began under another may not be taken up again.
    pub(super) fn trust(&self, settings: &ListenerTls) -> Fingerprint {
        let mut hasher = Sha256::new();
        if let (Some(clients), Some((_, certificates))) = (&settings.clients, &self.roots) {
            absorb(&mut hasher, format!("{} {:?}", clients.required, clients.identities).as_bytes());
            for certificate in certificates {
                absorb(&mut hasher, certificate);
            }
        }
        absorb(&mut hasher, format!("{:?} {:?}", settings.min_version, settings.max_version).as_bytes());
        hasher.finalize().into()
    }
}

impl ServerTls {
    /// Builds it; `tickets` are those that a session of the same trust may come with.
    pub(super) fn build(
        settings: &ListenerTls,
        materials: Materials,
        tickets: Arc<dyn ProducesTickets>,
    ) -> Result<ServerTls, Vec<Refusal>> {
        let (fingerprint, trust) = (materials.fingerprint(settings), materials.trust(settings));
        let inventory = materials.inventory(settings);
        let names = Arc::new(names(settings, materials.pairs)?);
        let anywhere = settings.certificates.first().map(|first| first.certificate.at).unwrap_or_default();
        let broken = |error: String| vec![Refusal::new(anywhere, format!("TLS cannot be set up: {error}"))];
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&versions(settings.min_version, settings.max_version))
            .map_err(|error| broken(error.to_string()))?;
        let builder = match (&settings.clients, materials.roots) {
            (Some(clients), Some((roots, _))) => {
                let chain = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider()));
                let chain = if clients.required { chain } else { chain.allow_unauthenticated() };
                let chain = chain.build().map_err(|error| broken(error.to_string()))?;
                let identities = Identities::new(&clients.identities);
                builder.with_client_cert_verifier(Arc::new(Verifier { chain, identities }))
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&names) as _);
        config.alpn_protocols = settings.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        // Sessions are taken up again by tickets alone: nothing is kept here of them, however many there are.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::clone(&tickets);
        Ok(ServerTls {
            config: Arc::new(config),
            names,
            forward: Forward::new(settings.clients.as_ref()),
            match_authority: settings.clients.as_ref().is_some_and(|clients| clients.match_authority),
            permissive: settings.permissive,
            inventory,
            fingerprint,
            trust,
            tickets,
        })
    }

    /// A hash of everything it was made from.
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    /// Who gets in, and how: connections that came by others are not what the listener would let in now.
    pub fn terms(&self) -> impl PartialEq + use<> {
        (self.trust, self.permissive)
    }

    /// The certificates in it.
    pub fn inventory(&self) -> &[Held] {
        &self.inventory
    }

    /// For handshakes.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Whether clients may speak in cleartext, too.
    pub fn is_permissive(&self) -> bool {
        self.permissive
    }

    /// What a handshake settled.
    ///
    /// # Errors
    /// The client's certificate was good when the session began that it takes up again, and is not any more; or what is to
    /// be said of it cannot be.
    pub fn settled(&self, connection: &ServerConnection) -> Result<Settled, String> {
        let name: Option<Rc<str>> = connection.server_name().map(Into::into);
        let shown = self.names.find(name.as_deref());
        let chain = connection.peer_certificates().unwrap_or_default();
        let mut settled = Settled {
            tls: Tls {
                version: connection.protocol_version().and_then(version_name),
                server_name: name,
                local: shown.map(|shown| Arc::clone(&shown.certificate)),
                peer: None,
            },
            authority: None,
            forwarded: None,
        };
        if let Some(leaf) = chain.first() {
            let facts = Facts::of(leaf)?;
            if facts.has_expired(SystemTime::now()) {
                return Err("the client's certificate has expired since its session began".to_owned());
            }
            let own_uris = shown.map(|shown| &*shown.uris).unwrap_or_default();
            settled.forwarded = self.forward.of(own_uris, &facts, chain)?;
            settled.authority = settled.tls.server_name.clone().filter(|_| self.match_authority);
            settled.tls.peer = Some(facts.for_filters(leaf));
        }
        Ok(settled)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("names", &self.names).finish_non_exhaustive()
    }
}

fn names(settings: &ListenerTls, pairs: Vec<Pair>) -> Result<Names<Shown>, Vec<Refusal>> {
    let mut names = Names::default();
    let mut refusals = Vec::new();
    for (index, (Pair { key, facts }, files)) in pairs.into_iter().zip(&settings.certificates).enumerate() {
        let certificate = match key.cert.first() {
            Some(leaf) => facts.for_filters(leaf),
            None => continue,
        };
        let shown = Shown { key: Arc::new(key), certificate, uris: facts.uris.clone().into() };
        let is_default = index == 0 && settings.unknown_names == UnknownNames::Default;
        let own = if files.names.is_empty() { &facts.dns_names } else { &files.names };
        if own.is_empty() && !is_default {
            let message = format!("the certificate in {} has no DNS name", files::show(&files.certificate));
            let hint = "no client could ask for it: say its `names`, or make it the first";
            refusals.push(Refusal::hinted(files.certificate.at, message, hint));
        }
        for name in own {
            if !names.add(name, shown.clone()) {
                let message = format!("another certificate is for the name `{name}` as well");
                let hint = "say by `names` which names each is for";
                refusals.push(Refusal::hinted(files.certificate.at, message, hint));
            }
        }
        if is_default {
            names.set_default(shown);
        }
    }
    if refusals.is_empty() { Ok(names) } else { Err(refusals) }
}

/// Webpki's checks of a client's certificate, and after them the list of accepted IDs.
#[derive(Debug)]
struct Verifier {
    chain: Arc<dyn ClientCertVerifier>,
    identities: Identities,
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.identities.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

impl Identities {
    /// Whether a certificate has an accepted ID.
    pub(super) fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        let facts = Facts::of(certificate).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        if self.accept(&facts.uris) {
            return Ok(());
        }
        let refused = NotAccepted(facts.uris.join(", "));
        Err(CertificateError::Other(OtherError(Arc::new(refused))).into())
    }
}

/// A certificate is good, and its bearer is not one of those that are let in.
#[derive(Debug, thiserror::Error)]
#[error("its SPIFFE ID is not accepted: `{0}`")]
struct NotAccepted(String);
