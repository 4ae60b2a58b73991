//! What a test's proxy is started with: the configuration's text, and the files beside it.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;
use tokio::process::Command;

use crate::backend::Backend;
use crate::command::{Finished, binary, run};
use crate::meshgate::Meshgate;
use crate::modules::guest;
use crate::tls::Issued;
use crate::wire::RawBackend;

/// The configuration's name in its folder.
pub(crate) const FILE: &str = "meshgate.yaml";

/// A proxy to be started, said in a sentence that ends with `start` or `check`.
#[derive(Clone)]
pub struct Setup {
    text: Text,
    written_to: String,
    files: Vec<(String, Vec<u8>)>,
    links: Vec<(String, String)>,
    launcher: Option<String>,
}

#[derive(Clone)]
enum Text {
    /// The file as it stands.
    Whole(String),
    /// The chain of the only listener; the rest is written around it.
    Around(Around),
}

#[derive(Clone)]
struct Around {
    chain: String,
    chains: String,
    default_cluster: bool,
    workers: usize,
    listener: Vec<String>,
    filters: Vec<String>,
    clusters: Vec<(String, String)>,
    top: Vec<String>,
}

impl Setup {
    pub(crate) fn whole(text: &str) -> Setup {
        Setup::of(Text::Whole(text.to_owned()))
    }

    pub(crate) fn chain(chain: &str) -> Setup {
        let around = Around {
            chain: chain.to_owned(),
            chains: String::new(),
            default_cluster: true,
            workers: 1,
            listener: Vec::new(),
            filters: Vec::new(),
            clusters: Vec::new(),
            top: Vec::new(),
        };
        Setup::of(Text::Around(around))
    }

    fn of(text: Text) -> Setup {
        Setup { text, written_to: FILE.to_owned(), files: Vec::new(), links: Vec::new(), launcher: None }
    }

    /// Puts a file into the configuration's folder.
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Setup {
        self.files.push((path.to_owned(), content.as_ref().to_owned()));
        self
    }

    /// Puts a certificate and its key into the configuration's folder: `NAME.pem` and `NAME.key`.
    pub fn pair(self, name: &str, issued: &Issued) -> Setup {
        self.file(&format!("{name}.pem"), &issued.certificate).file(&format!("{name}.key"), &issued.key)
    }

    /// Puts a symbolic link into the configuration's folder.
    pub fn link(mut self, path: &str, target: &str) -> Setup {
        self.links.push((path.to_owned(), target.to_owned()));
        self
    }

    /// Writes the configuration there instead of `meshgate.yaml`, which must then be a link to it.
    pub fn written_to(mut self, path: &str) -> Setup {
        path.clone_into(&mut self.written_to);
        self
    }

    /// Adds a cluster of these backends. The first cluster is the listener's default one.
    pub fn cluster(self, name: &str, backends: &[&Backend]) -> Setup {
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address()).collect();
        self.cluster_of(name, &addresses, "")
    }

    /// Adds a cluster of one raw backend.
    pub fn raw_cluster(self, name: &str, backend: &RawBackend) -> Setup {
        self.cluster_of(name, &[backend.address()], "")
    }

    /// Adds a cluster of these addresses, with `more` keys such as "connect_timeout: 1s".
    pub fn cluster_of(mut self, name: &str, addresses: &[SocketAddr], more: &str) -> Setup {
        let endpoints = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let comma = if more.is_empty() { "" } else { ", " };
        let entry =
            format!("{{name: {name}, endpoints: [\"{}\"]{comma}{more}}}", endpoints.replace(", ", "\", \""));
        self.around().clusters.push((name.to_owned(), entry));
        self
    }

    /// Adds an entry under `filters` for the guest of the same name, with the guest's file and `more` keys.
    pub fn guest(self, name: &str, more: &str) -> Setup {
        self.filter(name, &guest(name), more)
    }

    /// Adds an entry under `filters`, with these bytes as its module and `more` keys.
    pub fn filter(mut self, name: &str, module: &[u8], more: &str) -> Setup {
        let comma = if more.is_empty() { "" } else { ", " };
        self.around().filters.push(format!("{name}: {{module: ./{name}.wasm{comma}{more}}}"));
        self.file(&format!("{name}.wasm"), module)
    }

    /// Adds an entry under `filters` for a module file that is there already.
    pub fn named_module(mut self, name: &str, path: &str) -> Setup {
        self.around().filters.push(format!("{name}: {{module: {path}}}"));
        self
    }

    /// Adds another named chain, or several: YAML of the inside of `chains`.
    pub fn more_chains(mut self, chains: &str) -> Setup {
        chains.clone_into(&mut self.around().chains);
        self
    }

    /// Adds a key to the listener, such as "idle_timeout: 1s".
    pub fn listener(mut self, key: &str) -> Setup {
        self.around().listener.push(key.to_owned());
        self
    }

    /// Adds a top-level key, such as "drain: {timeout: 1s}".
    pub fn top(mut self, key: &str) -> Setup {
        self.around().top.push(key.to_owned());
        self
    }

    /// The number of workers; one, unless told.
    pub fn workers(mut self, workers: usize) -> Setup {
        self.around().workers = workers;
        self
    }

    /// Leaves it to the chain to decide each route.
    pub fn without_default_cluster(mut self) -> Setup {
        self.around().default_cluster = false;
        self
    }

    /// The same with another chain.
    pub fn with_chain(mut self, chain: &str) -> Setup {
        chain.clone_into(&mut self.around().chain);
        self
    }

    /// Starts the proxy by this line of `sh`, which ends in `exec "$0" "$@"`, or in what that is wrapped in.
    pub fn launched_by(mut self, script: &str) -> Setup {
        self.launcher = Some(script.to_owned());
        self
    }

    /// The command that starts the proxy, without its arguments.
    pub(crate) fn command(&self) -> Command {
        match &self.launcher {
            None => Command::new(binary()),
            Some(script) => {
                let mut command = Command::new("sh");
                command.args(["-c", script]).arg(binary());
                command
            }
        }
    }

    /// The configuration's text.
    pub fn yaml(&self) -> String {
        match &self.text {
            Text::Whole(text) => text.clone(),
            Text::Around(around) => around.yaml(),
        }
    }

    /// `meshgate.yaml:LINE:`, as messages say it, of the first line that contains `part`.
    pub fn place(&self, part: &str) -> String {
        let line = self.yaml().lines().position(|line| line.contains(part));
        format!("{FILE}:{}:", 1 + line.unwrap_or_else(|| panic!("{part} is not in\n{}", self.yaml())))
    }

    /// Starts the proxy and waits until it is ready.
    pub async fn start(self) -> Meshgate {
        let folder = self.write();
        Meshgate::start(self, folder).await
    }

    /// Runs `meshgate check` on it.
    pub async fn check(self) -> Finished {
        self.finish("check", &[]).await
    }

    /// Runs `meshgate run` on it, which is expected to end by itself.
    pub async fn start_refused(self) -> Finished {
        self.finish("run", &["-c"]).await
    }

    async fn finish(self, verb: &str, options: &[&str]) -> Finished {
        let folder = self.write();
        let mut command = Command::new(binary());
        command.arg(verb).args(options).arg(FILE).current_dir(folder.path());
        run(command).await
    }

    fn write(&self) -> TempDir {
        let folder = TempDir::new().expect("a temporary folder");
        let write = |path: &str, content: &[u8]| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).expect("a folder for the file");
            std::fs::write(&path, content).expect("a file beside the configuration");
        };
        for (path, content) in &self.files {
            write(path, content);
        }
        write(&self.written_to, self.yaml().as_bytes());
        for (path, target) in &self.links {
            std::os::unix::fs::symlink(target, folder.path().join(path)).expect("a link in the folder");
        }
        folder
    }

    fn around(&mut self) -> &mut Around {
        match &mut self.text {
            Text::Around(around) => around,
            Text::Whole(_) => panic!("a whole file is given: put it there"),
        }
    }
}

impl Around {
    fn yaml(&self) -> String {
        let mut lines = vec![
            "admin: {address: \"127.0.0.1:0\"}".to_owned(),
            format!("workers: {}", self.workers),
            "access_log: {format: json}".to_owned(),
        ];
        lines.extend(self.top.iter().cloned());
        lines.extend(
            ["listeners:", "  - name: web", "    address: 127.0.0.1:0", "    chain: web"].map(str::to_owned),
        );
        if let (true, Some((name, _))) = (self.default_cluster, self.clusters.first()) {
            lines.push(format!("    cluster: {name}"));
        }
        lines.extend(self.listener.iter().map(|key| format!("    {key}")));
        lines.push("chains:".to_owned());
        if self.chain.trim().is_empty() {
            lines.push("  web: []".to_owned());
        } else {
            lines.push("  web:".to_owned());
            lines.extend(indented(&self.chain, "    "));
        }
        lines.extend(indented(&self.chains, "  "));
        if !self.filters.is_empty() {
            lines.push("filters:".to_owned());
            lines.extend(self.filters.iter().map(|filter| format!("  {filter}")));
        }
        if !self.clusters.is_empty() {
            lines.push("clusters:".to_owned());
            lines.extend(self.clusters.iter().map(|(_, entry)| format!("  - {entry}")));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

/// The lines of `text`, moved so that the leftmost of them starts after `margin`. Empty lines are dropped.
fn indented(text: &str, margin: &str) -> Vec<String> {
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    let common = lines().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    lines().map(|line| format!("{margin}{}", &line[common..])).collect()
}
