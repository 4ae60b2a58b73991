//! From a snapshot to workers that serve by it: bind what is new, have every worker prepare, then swap them all. Until
//! the last step nothing that runs is touched, and the last step cannot fail.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use meshgate_config::{AccessLog, Address, Config, Drain, Listener, Overload};

use super::build::{Builder, Built};
use super::inherited::{Inherited, Predecessor};
use super::summary::summarize;
use super::systemd::{ActivationSockets, Notifier};
use super::upgrade::{PATIENCE, Passed};
use crate::admin;
use crate::downstream::{self, Bound, SocketFile};
use crate::reload::{Rebuild, ReloadOutcome};
use crate::snapshot::Snapshot;
use crate::telemetry::{AccessLogTarget, AccessLogWriter};
use crate::upstream::Caretaker;
use crate::worker::{ListenerSocket, Worker};

/// Puts snapshots into force. Clones are handles to the same workers.
#[derive(Clone)]
pub(super) struct Rollout(Rc<Parts>);

/// What it works with.
pub(super) struct Parts {
    pub(super) builder: Builder,
    pub(super) workers: Vec<Worker>,
    pub(super) access_log: AccessLogWriter,
    pub(super) state: Arc<admin::State>,
    pub(super) shared: Arc<meshgate_wasm::Shared>,
    pub(super) file: PathBuf,
    /// Sockets that need not be bound.
    pub(super) activation: ActivationSockets,
    /// The process whose place this one takes, if it takes one.
    pub(super) predecessor: Option<Rc<Predecessor>>,
    pub(super) systemd: Rc<Notifier>,
    pub(super) running: RefCell<Option<Arc<Snapshot>>>,
    /// The files of Unix sockets, by their listener.
    pub(super) socket_files: RefCell<HashMap<String, SocketFile>>,
    pub(super) caretaker: RefCell<Caretaker>,
}

/// Sockets of the new listeners.
struct Sockets {
    /// One list per worker.
    lists: Vec<Vec<ListenerSocket>>,
    /// The files of those on a path, removed again if nothing comes of it.
    files: HashMap<String, SocketFile>,
}

impl Sockets {
    /// Takes over what another process listens on. Each of its sockets goes on being accepted from: with more sockets than
    /// workers some have several, with fewer some share one.
    fn adopt(&mut self, listener: &Listener, inherited: Inherited) -> io::Result<()> {
        let Inherited { sockets: mut given, file } = inherited;
        let mut address = listener.address;
        if let Some(first) = given.first()
            && let meshgate_wasm::Address::Ip(chosen) = first.address()?
        {
            address = chosen.into();
        }
        for index in given.len()..self.lists.len() {
            given.push(given[index % given.len()].try_clone()?);
        }
        tracing::info!(listener = %listener.name, %address, "listening");
        self.files.extend(file.map(|file| (listener.name.clone(), file)));
        let workers = self.lists.len();
        for (index, socket) in given.into_iter().enumerate() {
            self.lists[index % workers].push(ListenerSocket { name: listener.name.clone(), socket });
        }
        Ok(())
    }
}

impl Rollout {
    pub(super) fn new(parts: Parts) -> Rollout {
        Rollout(Rc::new(parts))
    }

    pub(super) fn reopen_access_log(&self) {
        self.0.access_log.reopen();
    }

    /// Writes the access log's last lines; the workers must have flushed theirs. `false` if it took too long.
    pub(super) fn close_access_log(&self, patience: Duration) -> bool {
        self.0.access_log.close(patience)
    }

    /// How the process ends, by the configuration in force.
    pub(super) fn drain(&self) -> Drain {
        self.0.running.borrow().as_ref().map(|running| running.config.drain).unwrap_or_default()
    }

    /// How long the filter that takes longest may take for its end, by the configuration in force.
    pub(super) fn filters_end(&self) -> Duration {
        let running = self.0.running.borrow();
        let Some(running) = running.as_ref() else { return Duration::ZERO };
        let used =
            running.config.chains.iter().flat_map(|chain| &chain.filters).chain(&running.config.services);
        used.map(|filter| filter.limits.done).max().unwrap_or_default()
    }

    /// What happens when memory runs short, by the configuration in force.
    pub(super) fn overload(&self) -> Overload {
        self.0.running.borrow().as_ref().map(|running| running.config.overload).unwrap_or_default()
    }

    /// How long a process that is to take this one's place may need until it is ready.
    pub(super) fn upgrade_timeout(&self) -> Duration {
        self.0.running.borrow().as_ref().map_or(PATIENCE, |running| running.config.upgrade_timeout)
    }

    /// Other handles to all sockets that are accepted from, for another process.
    pub(super) async fn sockets(&self) -> Result<Vec<(Passed, OwnedFd)>, String> {
        let running = self.0.running.borrow().clone().ok_or("nothing runs yet")?;
        let mut all = Vec::new();
        for worker in &self.0.workers {
            let handles = worker.handles().await.map_err(|error| error.to_string())?;
            for ListenerSocket { name, socket } in handles {
                let listener = running.config.listeners.iter().find(|listener| listener.name == name);
                let Some(listener) = listener else { continue };
                let owns_file = self.0.socket_files.borrow().contains_key(&name);
                let address = listener.address.to_string();
                all.push((Passed { listener: Some(name), address, owns_file }, socket.into_fd()));
            }
        }
        Ok(all)
    }

    /// Leaves the files of all Unix sockets to the process that takes this one's place.
    pub(super) fn leave_socket_files(&self) {
        self.0.socket_files.borrow_mut().drain().for_each(|(_, file)| file.leave());
    }

    /// Puts a snapshot into force. An error has touched nothing.
    pub(super) async fn swap(&self, snapshot: Arc<Snapshot>) -> Result<(), String> {
        let parts = &*self.0;
        let running = parts.running.borrow().clone();
        let target = self.access_log_target(running.as_deref(), &snapshot.config)?;
        let sockets = self.bind(running.as_deref(), &snapshot)?;
        self.set_bounds(&snapshot.config);
        let known = parts.caretaker.borrow_mut().prepare(snapshot.clusters());
        known.finish().await;
        let Sockets { lists, files } = sockets;
        if let Err(reason) = self.prepare(&snapshot, lists).await {
            for worker in &parts.workers {
                worker.abandon().await;
            }
            if let Some(running) = &running {
                self.set_bounds(&running.config);
                parts.caretaker.borrow_mut().take_over(running.clusters());
            }
            return Err(reason);
        }
        for worker in &parts.workers {
            worker.commit().await;
        }
        self.keep_socket_files(&snapshot, files);
        parts.caretaker.borrow_mut().take_over(snapshot.clusters());
        if let Some(target) = target {
            parts.access_log.switch(target);
        }
        if let Some(running) = &running {
            warn_of_restart(&running.config, &snapshot.config);
        }
        parts.state.publish(summarize(&snapshot, &parts.file));
        parts.builder.keep_only(&snapshot);
        *parts.running.borrow_mut() = Some(snapshot);
        Ok(())
    }

    /// The new snapshot's VMs are started within its own bounds, beside the ones that run.
    fn set_bounds(&self, config: &Config) {
        self.0.shared.bounds().set(config.wasm.memory, config.wasm.exchange_instances);
    }

    /// Nobody is to find the files of listeners that are gone; who may connect to the others may have changed.
    fn keep_socket_files(&self, snapshot: &Snapshot, new: HashMap<String, SocketFile>) {
        let mut files = self.0.socket_files.borrow_mut();
        let listener = |name: &str| snapshot.config.listeners.iter().find(|listener| listener.name == name);
        files.retain(|name, _| listener(name).is_some());
        files.extend(new);
        for (name, file) in files.iter() {
            if let Some(listener) = listener(name) {
                file.set_mode(listener.socket_mode);
            }
        }
    }

    /// Removes the files of all Unix sockets: new clients are to see that nobody is there.
    pub(super) fn remove_socket_files(&self) {
        self.0.socket_files.borrow_mut().clear();
    }

    async fn prepare(
        &self,
        snapshot: &Arc<Snapshot>,
        sockets: Vec<Vec<ListenerSocket>>,
    ) -> Result<(), String> {
        for (worker, sockets) in self.0.workers.iter().zip(sockets) {
            worker.prepare(Arc::clone(snapshot), sockets).await.map_err(|reason| match reason {
                Some(diagnostic) => diagnostic.to_string(),
                None => "a worker thread has ended; the process must be restarted".to_owned(),
            })?;
        }
        Ok(())
    }

    /// The access log's new target, if it is another than the running one.
    fn access_log_target(
        &self,
        running: Option<&Snapshot>,
        config: &Config,
    ) -> Result<Option<AccessLogTarget>, String> {
        let same = |running: &Snapshot| running.config.access_log == config.access_log;
        if running.is_none_or(same) {
            return Ok(None);
        }
        let AccessLog { output, .. } = &config.access_log;
        AccessLogTarget::open(&config.access_log)
            .map(Some)
            .map_err(|error| format!("cannot open the access log {output:?}: {error}"))
    }

    /// Binds the listeners that the running snapshot does not have, a socket for each worker.
    fn bind(&self, running: Option<&Snapshot>, snapshot: &Snapshot) -> Result<Sockets, String> {
        let bound: HashMap<&str, Address> = running
            .into_iter()
            .flat_map(|running| &running.config.listeners)
            .map(|listener| (listener.name.as_str(), listener.address))
            .collect();
        let lists = self.0.workers.iter().map(|_| Vec::new()).collect();
        let mut sockets = Sockets { lists, files: HashMap::new() };
        let mut errors = Vec::new();
        for listener in &snapshot.config.listeners {
            match bound.get(listener.name.as_str()) {
                Some(address) if *address == listener.address => continue,
                Some(_) => errors.push(snapshot.config.source.diagnostic(
                    listener.at,
                    format!("listener `{}` cannot change its address while it runs", listener.name),
                    Some("give the listener another name".to_owned()),
                )),
                None => {
                    if let Err(error) = self.bind_one(listener, &mut sockets) {
                        let message = format!("cannot listen on {}: {error}", listener.address);
                        errors.push(snapshot.config.source.diagnostic(listener.at, message, None));
                    }
                }
            }
        }
        if errors.is_empty() { Ok(sockets) } else { Err(meshgate_config::Diagnostics(errors).to_string()) }
    }

    fn bind_one(&self, listener: &Listener, sockets: &mut Sockets) -> io::Result<()> {
        if let Some(predecessor) = &self.0.predecessor
            && let Some(inherited) = predecessor.sockets_for(listener)?
        {
            return sockets.adopt(listener, inherited);
        }
        let mut address = listener.address;
        let mut bound: Vec<Bound> = Vec::with_capacity(sockets.lists.len());
        let mut file = None;
        for _ in 0..sockets.lists.len() {
            let given = self.0.activation.socket_for(&listener.name, listener.address);
            let socket = match (given, bound.first(), address) {
                (Some(socket), ..) => socket?,
                (None, Some(first @ Bound::Unix(..)), _) => first.try_clone()?,
                (None, _, Address::Ip(address)) => downstream::bind(address)?,
                (None, _, Address::Unix(path)) => {
                    let (socket, made) = downstream::bind_unix(path, listener.socket_mode)?;
                    file = Some(made);
                    socket
                }
            };
            // Port 0 is chosen once, for all workers.
            if let meshgate_wasm::Address::Ip(chosen) = socket.address()? {
                address = chosen.into();
            }
            bound.push(socket);
        }
        tracing::info!(listener = %listener.name, %address, "listening");
        sockets.files.extend(file.map(|file| (listener.name.clone(), file)));
        for (sockets, socket) in sockets.lists.iter_mut().zip(bound) {
            sockets.push(ListenerSocket { name: listener.name.clone(), socket });
        }
        Ok(())
    }

    async fn attempt(&self) -> ReloadOutcome {
        self.0.systemd.reloading();
        let mut builder = self.0.builder.clone();
        let Built { outcome, files } = builder.build().await;
        let result = match outcome {
            Ok(snapshot) => self.swap(Arc::clone(&snapshot)).await.map(|()| snapshot.version.clone()),
            Err(diagnostics) => Err(diagnostics),
        };
        self.0.systemd.ready();
        ReloadOutcome { result, files }
    }
}

impl Rebuild for Rollout {
    async fn rebuild(&mut self) -> ReloadOutcome {
        self.attempt().await
    }

    fn renewable(&self) -> BTreeSet<PathBuf> {
        let running = self.0.running.borrow();
        running.iter().flat_map(|running| running.renewable()).map(Path::to_owned).collect()
    }

    async fn renew(&mut self) -> Option<String> {
        let running = self.0.running.borrow().clone()?;
        let snapshot = self.0.builder.renew(running).await?;
        let version = snapshot.version.clone();
        // A filter that no worker can run any more is for the whole reload to tell.
        self.swap(snapshot).await.ok().map(|()| version)
    }
}

/// Some settings are read once: a change is told, and not pretended to work.
fn warn_of_restart(running: &Config, new: &Config) {
    let admin = |config: &Config| config.admin.as_ref().map(|admin| admin.address);
    let changed = [("workers", running.workers != new.workers), ("admin", admin(running) != admin(new))];
    for (key, _) in changed.into_iter().filter(|(_, changed)| *changed) {
        tracing::warn!(key, "this change takes effect at the next start");
    }
}
