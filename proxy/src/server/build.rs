//! From a file to a snapshot that was tried: load, check, compile, configure on throw-away VMs. Off the main thread,
//! which goes on to serve the admin API and signals. `meshgate check` is this and nothing else.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meshgate_wasm::{
    CallError, Engine, EngineOptions, ForeignCaller, Host, HttpCall, HttpCallReply, LogLevel, ModuleHash,
    PluginSpec, Status, TickHandle, VmError, Vms,
};

use super::ServerError;
use crate::filter::foreign_function;
use crate::modules::{CompiledModules, ModuleFiles};
use crate::snapshot::{Snapshot, Workshop};
use crate::tls::TlsStore;
use crate::upstream::SharedClusters;

/// Builds snapshots of one file, again and again.
#[derive(Clone)]
pub struct Builder {
    file: PathBuf,
    engine: Engine,
    compiled: Arc<Mutex<CompiledModules>>,
    /// What is known of clusters, over reloads.
    clusters: Arc<Mutex<SharedClusters>>,
    /// What TLS keeps, over reloads.
    tls: Arc<Mutex<TlsStore>>,
}

/// What came of building.
pub struct Built {
    /// The snapshot, or all diagnostics as text.
    pub outcome: Result<Arc<Snapshot>, String>,
    /// Every file that was looked at.
    pub files: Vec<PathBuf>,
}

impl Builder {
    /// A builder with its own engine.
    ///
    /// # Errors
    /// The engine does not start.
    pub fn new(file: PathBuf) -> Result<Builder, ServerError> {
        let engine = Engine::new(EngineOptions { cache: cache_folder(), ..EngineOptions::default() })?;
        Ok(Builder { file, engine, compiled: Arc::default(), clusters: Arc::default(), tls: Arc::default() })
    }

    /// The engine that its modules are compiled for.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Builds the file as it is now, on a thread of its own.
    pub async fn build(&mut self) -> Built {
        let builder = self.clone();
        match tokio::task::spawn_blocking(move || builder.build_here()).await {
            Ok(built) => built,
            Err(error) => Built {
                outcome: Err(format!("building the configuration failed: {error}")),
                files: vec![self.file.clone()],
            },
        }
    }

    /// Builds the file as it is now, on this thread.
    pub fn build_here(&self) -> Built {
        let mut modules = ModuleFiles::new();
        let load = meshgate_config::load(&self.file, &mut modules);
        let outcome = load.outcome.and_then(|config| {
            let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
            let mut tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
            let workshop = Workshop {
                engine: &self.engine,
                compiled: &mut compiled,
                clusters: &mut clusters,
                tls: &mut tls,
            };
            let snapshot = Snapshot::build(config, &mut modules, workshop)?;
            drop((compiled, clusters, tls));
            let trial = Rc::new(Trial::default());
            let host = Rc::clone(&trial) as Rc<dyn Host>;
            let shared = meshgate_wasm::Shared::new();
            shared.bounds().set(snapshot.config.wasm.memory, snapshot.config.wasm.exchange_instances);
            let vms = Vms::new(self.engine.clone(), host, shared);
            snapshot.try_out(&vms, &|| trial.said.take())?;
            Ok(Arc::new(snapshot))
        });
        Built { outcome: outcome.map_err(|diagnostics| diagnostics.to_string()), files: load.files }
    }

    /// The snapshot with what its certificates' files hold now, on a thread of its own; none if that cannot be used or is
    /// nothing new.
    pub async fn renew(&self, running: Arc<Snapshot>) -> Option<Arc<Snapshot>> {
        let tls = Arc::clone(&self.tls);
        let renewing = tokio::task::spawn_blocking(move || {
            running.renewed(&mut tls.lock().unwrap_or_else(PoisonError::into_inner)).map(Arc::new)
        });
        renewing.await.ok().flatten()
    }

    /// Forgets the modules that this snapshot does not use.
    pub fn keep_only(&self, snapshot: &Snapshot) {
        let used = snapshot.filters().chain(snapshot.services());
        let used = used.map(|(_, spec)| ModuleHash::clone(spec.module.hash())).collect();
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).keep_only(&used);
    }
}

/// Where compiled modules are kept from one start to the next.
fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("MESHGATE_CACHE_DIR")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("meshgate")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache/meshgate")))
}

/// What filters find while they are tried: everything answers, and nothing leaves the process.
#[derive(Default)]
struct Trial {
    /// What the guests have logged that looks like a reason.
    said: RefCell<Vec<String>>,
}

/// Lines of one guest that go into a diagnostic.
const MOST_LINES: usize = 8;

impl Host for Trial {
    fn http_call(&self, _: &PluginSpec, _: HttpCall, _: HttpCallReply) -> Result<(), CallError> {
        // The call is never made, so its answer never comes: the trial is over before it could.
        Ok(())
    }

    fn tick(&self, _: TickHandle, _: Option<Duration>) {}

    fn foreign_function(
        &self,
        caller: &mut ForeignCaller<'_>,
        name: &str,
        argument: &[u8],
    ) -> Result<Vec<u8>, Status> {
        foreign_function(caller, name, argument)
    }

    fn log(&self, _: &PluginSpec, level: LogLevel, message: &str) {
        // What a filter says when it refuses is the reason; what it says when it is content, the workers say.
        let mut said = self.said.borrow_mut();
        if level >= LogLevel::Warn && said.len() < MOST_LINES {
            said.push(message.to_owned());
        }
    }

    fn failed(&self, _: &PluginSpec, _: &VmError) {
        // The error is also returned, and ends up in the diagnostics.
    }
}
