//! One built configuration. The only code that turns names in the configuration into running parts: first into what
//! all workers share ([`Snapshot`]: compiled modules, plugins' specs), then on each worker into what serves requests
//! ([`WorkerSnapshot`]: plugins, chains, clusters, listeners).

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use meshgate_config::{
    ChainId, ClusterTls, Config, Diagnostic, Diagnostics, FilterUse, ListenerTls, Position, Protocol,
};
use meshgate_wasm::{Callbacks, Direction, Engine, ListenerFacts, Node, Plugin, PluginSpec, StartError, Vms};
use sha2::{Digest, Sha256};

use crate::filter::{Chain, Filter, Target, Targets};
use crate::message::Forwarding;
use crate::modules::{CompiledModules, ModuleFiles};
use crate::telemetry::{AccessLog, ExchangeMetrics, ListenerMetrics, TcpMetrics};
use crate::tls::{ClientTls, Held, Names, Refusal, ServerTls, TlsStore};
use crate::upstream::{Clusters, ConfiguredCluster, SharedCluster, SharedClusters, Upstream, place};

mod services;
mod specs;

use services::Services;

/// Characters of a version: enough of the hash to tell versions apart by eye.
const VERSION_LENGTH: usize = 16;

/// One built configuration, the same for all workers; never changed.
pub struct Snapshot {
    /// A hash of everything it was built from.
    pub version: String,
    /// What it was built from.
    pub config: Arc<Config>,
    /// The plugins, by chain and place.
    plugins: Arc<[Vec<Arc<PluginSpec>>]>,
    /// The plugins of the services, in the order of the configuration.
    services: Arc<[Arc<PluginSpec>]>,
    /// What all workers know of the clusters, in the configuration's order.
    clusters: Vec<Arc<SharedCluster>>,
    tls: Tls,
}

/// The TLS of both sides, in the configuration's order.
struct Tls {
    listeners: Vec<Option<Arc<ServerTls>>>,
    clusters: Vec<Option<Arc<ClientTls>>>,
}

/// What snapshots are built with, and what outlives them.
pub struct Workshop<'a> {
    /// Compiles modules.
    pub engine: &'a Engine,
    /// The modules that are compiled.
    pub compiled: &'a mut CompiledModules,
    /// What is known of clusters.
    pub clusters: &'a mut SharedClusters,
    /// What TLS keeps.
    pub tls: &'a mut TlsStore,
}

impl Snapshot {
    /// Compiles what the configuration names, and reads its certificates. Takes long the first time a module is seen.
    ///
    /// # Errors
    /// Every module, certificate and key that cannot be used, at the places that name it.
    pub fn build(
        config: Config,
        files: &mut ModuleFiles,
        workshop: Workshop<'_>,
    ) -> Result<Snapshot, Diagnostics> {
        let Workshop { engine, compiled, clusters, tls } = workshop;
        let facts = &config.node;
        let node = Arc::new(Node {
            id: facts.id.clone(),
            cluster: facts.cluster.clone(),
            locality: place(&facts.locality),
            metadata: facts.metadata.clone(),
        });
        let mut errors = Vec::new();
        let mut specs = |filters: &[FilterUse]| -> Vec<Arc<PluginSpec>> {
            let spec = |filter: &FilterUse| {
                specs::of(filter, &config.wasm, &node, files, compiled, engine)
                    .map(Arc::new)
                    .map_err(|reason| errors.push(config.source.diagnostic(filter.at, reason, None)))
                    .ok()
            };
            filters.iter().filter_map(spec).collect()
        };
        let plugins: Vec<_> = config.chains.iter().map(|chain| specs(&chain.filters)).collect();
        let services = specs(&config.services);
        if errors.is_empty() {
            errors = deaf(&config, &plugins);
        }
        let tls = Tls::build(&config, tls, &mut errors);
        if !errors.is_empty() {
            return Err(Diagnostics(errors));
        }
        let version = version(&config, plugins.iter().flatten().chain(&services), &tls);
        let clusters = config.clusters.iter().map(|cluster| clusters.of(cluster)).collect();
        let (config, plugins, services) = (Arc::new(config), plugins.into(), services.into());
        Ok(Snapshot { version, config, plugins, services, clusters, tls })
    }

    /// The same with the certificates, keys and roots that are in the files now. None if they cannot be used as they are, or
    /// are what it has.
    pub fn renewed(&self, store: &mut TlsStore) -> Option<Snapshot> {
        let mut errors = Vec::new();
        let tls = Tls::build(&self.config, store, &mut errors);
        let plugins = self.plugins.iter().flatten().chain(&*self.services);
        let version = version(&self.config, plugins, &tls);
        (errors.is_empty() && version != self.version).then(|| Snapshot {
            version,
            config: Arc::clone(&self.config),
            plugins: Arc::clone(&self.plugins),
            services: Arc::clone(&self.services),
            clusters: self.clusters.clone(),
            tls,
        })
    }

    /// Every file that [`Snapshot::renewed`] reads.
    pub fn renewable(&self) -> impl Iterator<Item = &Path> {
        let listeners = self.config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let clusters = self.config.clusters.iter().filter_map(|cluster| cluster.tls.as_ref());
        let files = listeners.flat_map(ListenerTls::files).chain(clusters.flat_map(ClusterTls::files));
        files.map(|file| &*file.path)
    }

    /// Configures every plugin once on throw-away VMs. `said` takes what the guests have logged since it was last asked:
    /// a plugin that refuses says why in its log.
    ///
    /// # Errors
    /// Every plugin that refuses its configuration or fails, at its place in a chain.
    pub fn try_out(&self, vms: &Vms, said: &dyn Fn() -> Vec<String>) -> Result<(), Diagnostics> {
        // Held until the end: a spec that stands in several places is configured once.
        let mut running = Vec::new();
        let mut errors = Vec::new();
        for (filter, spec) in self.filters().chain(self.services()) {
            let started = vms.plugin(Arc::clone(spec));
            let said = said();
            match started {
                Ok(plugin) => running.push(plugin),
                Err(error) if said.is_empty() => errors.push(self.refusal(filter.at, &error)),
                Err(error) => {
                    let source = &self.config.source;
                    let part = said.iter().find_map(|said| source.refused_part(filter.at, said));
                    let message = format!("{error}: {}", said.join("; "));
                    errors.push(source.diagnostic(part.unwrap_or(filter.at), message, None));
                }
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Diagnostics(errors)) }
    }

    /// Every place in every chain with its plugin, in the order of the configuration.
    pub fn filters(&self) -> impl Iterator<Item = (&FilterUse, &Arc<PluginSpec>)> {
        let chains = self.config.chains.iter().zip(&*self.plugins);
        chains.flat_map(|(chain, specs)| chain.filters.iter().zip(specs))
    }

    /// Every service with its plugin, in the order of the configuration.
    pub fn services(&self) -> impl Iterator<Item = (&FilterUse, &Arc<PluginSpec>)> {
        self.config.services.iter().zip(&*self.services)
    }

    /// Every cluster with what all workers know of it, and its TLS.
    pub fn clusters(&self) -> impl Iterator<Item = ConfiguredCluster<'_>> {
        let clusters = self.config.clusters.iter().zip(&self.clusters).zip(&self.tls.clusters);
        clusters.map(|((cluster, shared), tls)| (cluster, shared, tls.as_ref()))
    }

    /// Every certificate in use, and by whom.
    pub fn certificates(&self) -> impl Iterator<Item = (String, &Held)> {
        let listeners = self.config.listeners.iter().zip(&self.tls.listeners);
        let listeners = listeners.flat_map(|(listener, tls)| {
            let held = tls.iter().flat_map(|tls| tls.inventory());
            held.map(|held| (format!("listener {}", listener.name), held))
        });
        let clusters = self.config.clusters.iter().zip(&self.tls.clusters);
        listeners.chain(clusters.flat_map(|(cluster, tls)| {
            let held = tls.iter().flat_map(|tls| tls.inventory());
            held.map(|held| (format!("cluster {}", cluster.name), held))
        }))
    }

    /// A plugin's failure to start, at its place.
    pub fn refusal(&self, at: Position, error: &StartError) -> Diagnostic {
        self.config.source.diagnostic(at, error.to_string(), None)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Tls {
    /// Builds what the configuration has; what is wrong with the files that it names goes to the errors.
    fn build(config: &Config, store: &mut TlsStore, errors: &mut Vec<Diagnostic>) -> Tls {
        let mut note = |refusals: Vec<Refusal>| {
            errors.extend(refusals.into_iter().map(|refusal| refusal.diagnostic(&config.source)));
        };
        let listeners = config.listeners.iter().map(|listener| {
            let tls = listener.tls.as_ref()?;
            store.server(&listener.name, tls).map_err(&mut note).ok()
        });
        let listeners = listeners.collect();
        let clusters = config.clusters.iter().map(|cluster| {
            let tls = cluster.tls.as_ref()?;
            store.client(&cluster.name, tls).map_err(&mut note).ok()
        });
        Tls { listeners, clusters: clusters.collect() }
    }

    fn fingerprints(&self) -> impl Iterator<Item = &[u8]> {
        let listeners = self.listeners.iter().flatten().map(|tls| tls.fingerprint());
        listeners.chain(self.clusters.iter().flatten().map(|tls| tls.fingerprint()))
    }
}

/// Filters that listeners have in their chains, and that would never hear of what comes there: one that checks who comes in
/// would let in everybody.
fn deaf(config: &Config, plugins: &[Vec<Arc<PluginSpec>>]) -> Vec<Diagnostic> {
    let mut errors: Vec<Diagnostic> = Vec::new();
    let sides = config.listeners.iter().flat_map(|whole| whole.sides().map(move |side| (whole, side)));
    for (whole, listener) in sides {
        let places = config.chain(listener.chain).filters.iter().zip(&plugins[listener.chain.0]);
        for (filter, spec) in places {
            let callbacks = spec.module.callbacks();
            let (kind, protocol, needed) = match listener.protocol {
                Protocol::Tcp if !callbacks.intersects(Callbacks::TCP) => {
                    ("TCP", "tcp", "proxy_on_new_connection, proxy_on_downstream_data or the like")
                }
                // One without any may still keep a log.
                Protocol::Http
                    if callbacks.intersects(Callbacks::TCP) && !callbacks.intersects(Callbacks::HTTP) =>
                {
                    ("HTTP", "http", "proxy_on_request_headers, proxy_on_response_headers or the like")
                }
                _ => continue,
            };
            if errors.iter().any(|known| known.at == filter.at) {
                continue;
            }
            let is_whole = std::ptr::eq(whole, listener);
            let why = if is_whole { format!("protocol: {protocol}") } else { "opaque".to_owned() };
            let message = format!(
                "filter `{}` has no callback for {kind}, and listener `{}` has `{why}`",
                filter.name, listener.name
            );
            let hint = format!("on a listener of {kind}, filters need {needed}");
            errors.push(config.source.diagnostic(filter.at, message, Some(hint)));
        }
    }
    errors
}

/// Equal configurations with equal modules and certificates have equal versions, on every machine.
fn version<'a>(config: &Config, plugins: impl Iterator<Item = &'a Arc<PluginSpec>>, tls: &Tls) -> String {
    let mut hasher = Sha256::new();
    hasher.update(config.source.text().as_bytes());
    for spec in plugins {
        hasher.update(spec.module.hash().0);
        hasher.update(&spec.configuration);
    }
    for fingerprint in tls.fingerprints() {
        hasher.update(fingerprint);
    }
    let mut version: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    version.truncate(VERSION_LENGTH);
    version
}

/// What all listeners of a worker use, whatever the snapshot.
#[derive(Clone)]
pub struct Shared {
    /// The way to the endpoints.
    pub upstream: Rc<Upstream>,
    /// The worker's access log.
    pub access_log: Rc<AccessLog>,
    /// The worker.
    pub seat: Seat,
}

/// A snapshot's parts on one worker.
pub struct WorkerSnapshot {
    /// What it was built from.
    pub snapshot: Arc<Snapshot>,
    /// By name.
    pub listeners: HashMap<String, Rc<Listener>>,
    /// The clusters, for listeners and for filters' HTTP calls.
    pub clusters: Clusters,
    /// All plugins, each once.
    pub plugins: Vec<Rc<Plugin>>,
}

/// Which worker it is, of how many.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// From 0 on.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

/// A listener's part in a snapshot: what an exchange needs to know of the configuration it began with.
pub struct Listener {
    /// Its name.
    pub name: Rc<str>,
    /// What its requests run through.
    pub chain: Rc<Chain>,
    /// Where requests go for which no filter decided a route.
    pub cluster: Option<Rc<str>>,
    /// The clusters that exist.
    pub clusters: Clusters,
    /// What filters may choose of them.
    pub targets: Targets,
    /// Its timeouts and limits.
    pub config: meshgate_config::Listener,
    /// Over how long its connections are told to leave when it drains.
    pub drain_spread: Duration,
    /// What filters may know of it; none if there is nothing to know.
    pub facts: Option<Rc<ListenerFacts>>,
    /// Who is believed about where requests come from.
    pub forwarding: Forwarding,
    /// The way to the endpoints.
    pub upstream: Rc<Upstream>,
    /// The worker's access log.
    pub access_log: Rc<AccessLog>,
    /// What is counted.
    pub metrics: ListenerMetrics,
    /// Where TLS that is passed through goes, by the server name that clients ask for.
    pub server_names: Names<Rc<str>>,
    /// TLS, if its clients speak that.
    pub tls: Option<Arc<ServerTls>>,
    /// What is counted of TCP connections, if it is a listener for them.
    pub tcp: Option<TcpMetrics>,
    /// Who serves connections that do not speak HTTP.
    pub opaque: Option<Rc<Listener>>,
}

impl WorkerSnapshot {
    /// Starts the plugins and puts everything in its place. What `previous` has and still holds is kept: plugins
    /// with their state, clusters with their connections.
    ///
    /// # Errors
    /// The first plugin that cannot start on this worker.
    pub fn build(
        snapshot: Arc<Snapshot>,
        vms: &Vms,
        shared: &Shared,
        metrics: &ExchangeMetrics,
        previous: Option<&WorkerSnapshot>,
        clusters_ready: &dyn Fn(&Clusters),
    ) -> Result<WorkerSnapshot, Diagnostic> {
        let clusters = Clusters::new(snapshot.clusters(), previous.map(|previous| &previous.clusters));
        // A filter may call a cluster while it starts.
        clusters_ready(&clusters);
        let mut chains = Chains { snapshot: &snapshot, vms, built: HashMap::new(), plugins: Vec::new() };
        let targets = targets(&clusters);
        let mut listeners = HashMap::with_capacity(snapshot.config.listeners.len());
        let mut part = |listener: &meshgate_config::Listener,
                        tls: Option<Arc<ServerTls>>,
                        opaque|
         -> Result<_, Diagnostic> {
            Ok(Rc::new(Listener {
                name: Rc::from(listener.name.as_str()),
                chain: chains.build(listener.chain)?,
                cluster: listener.cluster.as_deref().and_then(|name| Some(targets(name)?.name)),
                clusters: clusters.clone(),
                targets: Rc::clone(&targets),
                config: listener.clone(),
                drain_spread: snapshot.config.drain.spread,
                facts: facts(listener),
                forwarding: Forwarding::new(listener.forwarded.as_ref()),
                upstream: Rc::clone(&shared.upstream),
                access_log: Rc::clone(&shared.access_log),
                metrics: metrics.listener(&listener.name),
                server_names: server_names(listener, &targets),
                tls,
                tcp: (listener.protocol == Protocol::Tcp).then(|| metrics.tcp_listener(&listener.name)),
                opaque,
            }))
        };
        for (listener, tls) in snapshot.config.listeners.iter().zip(&snapshot.tls.listeners) {
            let opaque =
                listener.opaque.as_ref().map(|opaque| part(&opaque.listener, None, None)).transpose()?;
            listeners.insert(listener.name.clone(), part(listener, tls.clone(), opaque)?);
        }
        let mut plugins = chains.plugins;
        Services { snapshot: &snapshot, vms, seat: shared.seat }.start(&mut plugins)?;
        Ok(WorkerSnapshot { snapshot, listeners, clusters, plugins })
    }
}

fn server_names(listener: &meshgate_config::Listener, targets: &Targets) -> Names<Rc<str>> {
    let mut names = Names::default();
    for (name, cluster) in listener.tls_passthrough.iter().flat_map(|passthrough| &passthrough.names) {
        // It exists, and the name stands there once: both were checked.
        if let Some(cluster) = targets(cluster) {
            names.add(name, cluster.name);
        }
    }
    names
}

fn facts(listener: &meshgate_config::Listener) -> Option<Rc<ListenerFacts>> {
    let direction = match listener.direction {
        meshgate_config::Direction::Unspecified => Direction::Unspecified,
        meshgate_config::Direction::Inbound => Direction::Inbound,
        meshgate_config::Direction::Outbound => Direction::Outbound,
    };
    let none = direction == Direction::Unspecified && listener.metadata.is_empty();
    (!none).then(|| Rc::new(ListenerFacts { direction, metadata: listener.metadata.clone() }))
}

fn targets(clusters: &Clusters) -> Targets {
    let clusters = clusters.clone();
    Rc::new(move |name| {
        let cluster = clusters.find(name)?;
        Some(Target { name: Rc::clone(cluster.name()), metadata: cluster.metadata().cloned() })
    })
}

/// Chains under construction. Sub-chains hold no cycles: each is written inside of the filter that owns it.
struct Chains<'a> {
    snapshot: &'a Snapshot,
    vms: &'a Vms,
    built: HashMap<ChainId, Rc<Chain>>,
    plugins: Vec<Rc<Plugin>>,
}

impl Chains<'_> {
    fn build(&mut self, id: ChainId) -> Result<Rc<Chain>, Diagnostic> {
        if let Some(chain) = self.built.get(&id) {
            return Ok(Rc::clone(chain));
        }
        let configured = self.snapshot.config.chain(id);
        let mut filters = Vec::with_capacity(configured.filters.len());
        for (filter, spec) in configured.filters.iter().zip(&self.snapshot.plugins[id.0]) {
            filters.push(Rc::new(self.filter(filter, spec)?));
        }
        let chain = Rc::new(Chain { name: Rc::from(configured.name.as_str()), filters: filters.into() });
        self.built.insert(id, Rc::clone(&chain));
        Ok(chain)
    }

    fn filter(&mut self, filter: &FilterUse, spec: &Arc<PluginSpec>) -> Result<Filter, Diagnostic> {
        let plugin = self.vms.plugin(Arc::clone(spec));
        let plugin = plugin.map_err(|error| self.snapshot.refusal(filter.at, &error))?;
        if !self.plugins.iter().any(|known| Rc::ptr_eq(known, &plugin)) {
            self.plugins.push(Rc::clone(&plugin));
        }
        let mut chains = Vec::with_capacity(filter.chains.len());
        for (key, id) in &filter.chains {
            chains.push((key.clone(), self.build(*id)?));
        }
        Ok(Filter {
            name: Rc::from(filter.name.as_str()),
            callbacks: plugin.callbacks(),
            grpc_only: plugin.grpc_only(),
            on_error: filter.on_error,
            pause: filter.limits.pause,
            body_limit: usize::try_from(filter.limits.body).unwrap_or(usize::MAX),
            plugin,
            chains,
        })
    }
}
