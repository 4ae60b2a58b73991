//! Every example's README, command by command: each line with `curl` in a ```console block prints what stands below it.
//!
//! The example runs as it stands, but on free ports. Its clusters' endpoints are played by servers that answer
//! `NAME: METHOD PATH`, NAME being the cluster's. Those of some names do what the example needs instead (`servers.rs`): a cluster
//! `chat` speaks WebSocket, `greeter` gRPC, `collector` OpenTelemetry's protocol and `limits` that of Envoy's rate limit service;
//! `application`, `tokens`, `policy` and `web` do what the `servers.py` of their examples do; the first of `orders` fails; and at
//! `nobody` nobody listens. A line `...` in the README stands for any lines.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meshgate_tests::{
    Ask, Load, Meshgate, Prometheus, Shown, foreign_example, repository, run, shown_commands,
};
use tempfile::TempDir;
use tokio::process::Command;

use self::servers::Servers;

mod servers;

#[tokio::test]
async fn quickstart() {
    assert!(run_readme("quickstart").await >= 3);
}

#[tokio::test]
async fn admission() {
    assert!(run_readme("admission").await >= 5);
}

#[tokio::test]
async fn canary() {
    assert!(run_readme("canary").await >= 4);
}

#[tokio::test]
async fn own_router() {
    assert!(run_readme("own-router").await >= 4);
}

#[tokio::test]
async fn gateway() {
    assert!(run_readme("gateway").await >= 8);
}

#[tokio::test]
async fn grpc() {
    assert!(run_readme("grpc").await >= 2);
}

#[tokio::test]
async fn hello_filter() {
    assert!(run_readme("hello-filter").await >= 1);
}

#[tokio::test]
async fn caching_auth() {
    assert!(run_readme("caching-auth").await >= 5);
}

#[tokio::test]
async fn c() {
    other_language("c").await;
}

#[tokio::test]
async fn assemblyscript() {
    other_language("assemblyscript").await;
}

/// A filter whose compiler may not be there.
async fn other_language(example: &str) {
    if foreign_example(example).is_some() {
        assert!(run_readme(example).await >= 3);
    }
}

#[tokio::test]
async fn retries() {
    assert!(run_readme("retries").await >= 6);
}

#[tokio::test]
async fn jwt_authorization() {
    assert!(run_readme("jwt-authorization").await >= 7);
}

#[tokio::test]
async fn tcp() {
    assert!(run_readme("tcp").await >= 3);
}

#[tokio::test]
async fn telemetry() {
    assert!(run_readme("telemetry").await >= 4);
}

/// The same with a real Prometheus, if one is installed: its queries give what the load generator counted, and the receiver has
/// a span and a log record of each request.
#[tokio::test]
async fn telemetry_in_a_real_prometheus() {
    if Prometheus::installed().is_none() {
        println!("Prometheus is not installed: nothing was scraped");
        return;
    }
    let (_, gate, addresses, _beside) = started("telemetry").await;
    let scrape = std::fs::read_to_string(repository().join("examples/telemetry/prometheus.yml")).unwrap();
    let scrape =
        scrape.replace("127.0.0.1:9901", "SCRAPED").replace("scrape_interval: 1s", "scrape_interval: 200ms");
    let prometheus = Prometheus::start(&scrape, gate.admin_address()).await;

    let paths = ["/reviews/1", "/gone", "/nowhere", "/reviews/2"];
    let next = Arc::new(AtomicUsize::new(0));
    let ask = {
        let next = Arc::clone(&next);
        move || Ask::get(paths[next.fetch_add(1, Ordering::Relaxed) % 4]).header("x-tenant", "load")
    };
    let load = Load::start(gate.address(), 4, ask, |_| Ok(()));
    load.wait_for_more(1_000).await;
    let sent = load.stop().await.all_good() as usize;
    // The paths were drawn in turn.
    let of = |place: usize| (0..sent).filter(|number| number % 4 == place).count() as f64;
    let expected = [("200", of(0) + of(3)), ("410", of(1)), ("404", of(2))];
    for (code, count) in expected {
        let labels = format!("{{tenant=\"load\",response_code=\"{code}\"}}");
        for name in [
            "istio_requests_total",
            "istio_request_duration_milliseconds_count",
            "istio_response_bytes_count",
        ] {
            prometheus.wait_for(&format!("sum({name}{labels})"), count).await;
        }
    }
    prometheus.wait_for("sum(istio_requests_total{response_flags=\"NR\"})", of(2)).await;
    let slow = "histogram_quantile(0.99, sum by (le) (istio_request_duration_milliseconds_bucket))";
    let slow = prometheus.value(slow).await.expect("there were requests");
    assert!(slow > 0.0 && slow < 60_000.0, "{slow} ms");

    let collector = &addresses.servers.receivers[0];
    assert_eq!(collector.wait_for_logs(sent).await.len(), sent);
    // The route that answers by itself, and none at all, are no endpoint's.
    let all = sent + (of(0) + of(3)) as usize;
    let spans = collector.wait_for_spans(all).await;
    assert_eq!((spans.len(), spans.iter().filter(|span| span.kind == 2).count()), (all, sent));
}

#[tokio::test]
async fn fault_injection() {
    assert!(run_readme("fault-injection").await >= 6);
}

#[tokio::test]
async fn rate_limit() {
    assert!(run_readme("rate-limit").await >= 4);
}

#[tokio::test]
async fn edge() {
    assert!(run_readme("edge").await >= 16);
}

#[tokio::test]
async fn ext_authz() {
    assert!(run_readme("ext-authz").await >= 8);
}

#[tokio::test]
async fn global_rate_limit() {
    assert!(run_readme("global-rate-limit").await >= 7);
}

#[tokio::test]
async fn websocket() {
    assert!(run_readme("websocket").await >= 2);
}

#[tokio::test]
async fn no_example_is_left_out() {
    assert_eq!(
        folders("examples"),
        [
            "admission",
            "assemblyscript",
            "c",
            "caching-auth",
            "canary",
            "edge",
            "ext-authz",
            "fault-injection",
            "gateway",
            "global-rate-limit",
            "grpc",
            "hello-filter",
            "jwt-authorization",
            "own-router",
            "quickstart",
            "rate-limit",
            "retries",
            "tcp",
            "telemetry",
            "websocket"
        ],
        "each has a test here"
    );
}

#[test]
fn every_standard_filter_is_in_an_example() {
    let examples = folders("examples").into_iter().map(|name| repository().join("examples").join(name));
    let texts: Vec<_> =
        examples.map(|folder| std::fs::read_to_string(folder.join("meshgate.yaml")).unwrap()).collect();
    for filter in folders("filters") {
        let entry = format!("- {filter}:");
        assert!(texts.iter().any(|text| text.contains(&entry)), "{filter} is in none");
    }
}

/// What is in a folder of the repository.
fn folders(of: &str) -> Vec<String> {
    let entries = std::fs::read_dir(repository().join(of)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs the example and returns how many commands were tried.
async fn run_readme(example: &str) -> usize {
    let (page, _gate, addresses, beside) = started(example).await;
    let commands = shown_commands(&page).into_iter();
    let commands: Vec<_> =
        commands.filter(|shown| format!(" {}", shown.command).contains(" curl ")).collect();
    for shown in &commands {
        try_command(shown, &addresses, beside.path()).await;
    }
    commands.len()
}

/// Starts the example; its README's text, and where its commands run.
async fn started(example: &str) -> (String, Meshgate, Addresses, TempDir) {
    let folder = repository().join("examples").join(example);
    let page = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let yaml = std::fs::read_to_string(folder.join("meshgate.yaml")).unwrap();
    let mut addresses = Addresses::default();
    let beside = TempDir::new().unwrap();
    let mut setup = Meshgate::with(&addresses.freed(&yaml, &folder).await);
    for (path, content) in certificates(&folder, beside.path()).await {
        setup = setup.file(&path, content);
    }
    let gate = setup.start().await;
    addresses.learn(&gate);
    (page, gate, addresses, beside)
}

/// What the example's script for certificates makes, if there is one; it runs where the commands run.
async fn certificates(folder: &Path, beside: &Path) -> Vec<(String, Vec<u8>)> {
    let script = folder.join("certificates.sh");
    if !script.exists() {
        return Vec::new();
    }
    let mut command = Command::new(script);
    command.current_dir(beside);
    let finished = run(command).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let files = std::fs::read_dir(beside.join("certificates")).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (format!("certificates/{name}"), std::fs::read(path).unwrap())
    };
    files.map(named).collect()
}

async fn try_command(shown: &Shown, addresses: &Addresses, beside: &Path) {
    let mut shell = Command::new("sh");
    shell.current_dir(beside);
    shell.args(["-c", &addresses.translated(&shown.command)]);
    let finished = run(shell).await;
    let printed: Vec<_> = finished.stdout.lines().map(str::trim_end).collect();
    let expected: Vec<_> = shown.output.iter().map(|line| line.trim_end()).collect();
    assert!(
        matches(&printed, without_empty_end(&expected)),
        "$ {}\nprinted:\n{}\n(standard error: {})\nbut the README shows:\n{}",
        shown.command,
        finished.stdout,
        finished.stderr,
        expected.join("\n")
    );
}

fn without_empty_end<'a, 'b>(lines: &'a [&'b str]) -> &'a [&'b str] {
    let end = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    &lines[..end]
}

/// Whether these lines are the expected ones, where `...` stands for any number of them.
fn matches(lines: &[&str], expected: &[&str]) -> bool {
    match expected {
        [] => lines.is_empty(),
        ["...", rest @ ..] => (0..=lines.len()).any(|skipped| matches(&lines[skipped..], rest)),
        [line, rest @ ..] => lines.first() == Some(line) && matches(&lines[1..], rest),
    }
}

/// The addresses in an example, and those that stand for them in this run.
#[derive(Default)]
struct Addresses {
    admin: Vec<String>,
    listeners: Vec<(String, String)>,
    actual: Vec<(String, String)>,
    servers: Servers,
}

impl Addresses {
    /// The example's text with free ports, servers for its endpoints and absolute paths of its modules.
    async fn freed(&mut self, yaml: &str, folder: &Path) -> String {
        let (mut section, mut name) = (String::new(), String::new());
        let mut freed = String::new();
        for line in yaml.lines() {
            let code = line.split(" #").next().unwrap_or_default();
            if let Some((key, _)) = code.split_once(':')
                && !key.starts_with([' ', '#', '-'])
            {
                section = key.to_owned();
            }
            if let Some((_, rest)) = code.split_once("name: ") {
                name = rest.split([',', '}', ' ']).next().unwrap_or_default().to_owned();
            }
            let mut line = line.to_owned();
            for address in addresses_in(code) {
                let actual = match section.as_str() {
                    "admin" => {
                        self.admin.push(address.clone());
                        "127.0.0.1:0".to_owned()
                    }
                    "listeners" => {
                        self.listeners.push((name.clone(), address.clone()));
                        "127.0.0.1:0".to_owned()
                    }
                    _ => self.servers.play(&name).await.to_string(),
                };
                line = line.replace(&address, &actual);
            }
            if let Some((before, path)) = code.split_once("module: ") {
                let path = path.split([',', '}']).next().unwrap_or_default().trim();
                line = format!(
                    "{before}module: {}{}",
                    module(folder, path).display(),
                    &code[before.len() + 8 + path.len()..]
                );
            }
            freed += &line;
            freed.push('\n');
        }
        freed
    }

    fn learn(&mut self, gate: &Meshgate) {
        self.actual.extend(self.admin.iter().map(|shown| (shown.clone(), gate.admin_address().to_string())));
        for (name, shown) in &self.listeners {
            self.actual.push((shown.clone(), gate.listener(name).to_string()));
        }
    }

    /// A command with the addresses of this run.
    fn translated(&self, command: &str) -> String {
        self.actual
            .iter()
            .fold(command.to_owned(), |command, (shown, actual)| {
                let port = shown.rsplit(':').next().unwrap_or_default();
                let local = command.replace(&format!("localhost:{port}"), actual);
                local.replace(&format!("127.0.0.1:{port}"), actual)
            })
            // The commands run elsewhere.
            .replace("$(cat examples/", &format!("$(cat {}/examples/", repository().display()))
    }
}

/// All `ip:port` in a line of YAML.
fn addresses_in(line: &str) -> Vec<String> {
    let words = line.split(|letter: char| !letter.is_ascii_digit() && letter != '.' && letter != ':');
    words.filter(|word| word.parse::<std::net::SocketAddr>().is_ok()).map(str::to_owned).collect()
}

/// A module that an example names: beside it, or where `cargo xtask filters` puts it.
fn module(folder: &Path, path: &str) -> PathBuf {
    let beside = folder.join(path);
    let built = repository().join("target/examples").join(Path::new(path).file_name().unwrap());
    std::fs::canonicalize(&beside).or_else(|_| std::fs::canonicalize(&built)).unwrap_or_else(|error| {
        panic!("neither {} nor {}: {error}: run `cargo xtask test`", beside.display(), built.display())
    })
}
