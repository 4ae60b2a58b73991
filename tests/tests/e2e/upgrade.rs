//! Another binary in the place of the running one: no connection is lost, and one that fails changes nothing.

use http::Method;
use meshgate_tests::{Ask, Backend, Client, Load, Meshgate, Reply, Setup, WebSocket, empty, until};
use rustix::process::{Pid, Signal, kill_process};

/// Starts the proxy by a link that a test can have lead elsewhere.
const BY_A_LINK: &str = "ln -s \"$0\" meshgate && exec ./meshgate \"$@\"";

/// A process that has taken a proxy's place; killed when dropped.
struct Heir(Pid);

impl Heir {
    fn terminate(&self) {
        kill_process(self.0, Signal::TERM).unwrap();
    }

    /// Waits until it has ended. Whether somebody has asked how is not of interest.
    async fn ended(&self) {
        let stat = format!("/proc/{}/stat", self.0.as_raw_nonzero());
        until("the process has ended", || async {
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            text.rsplit_once(')').is_none_or(|(_, rest)| rest.starts_with(" Z")).then_some(())
        })
        .await;
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Asks for an upgrade.
async fn upgrade(gate: &Meshgate) -> Reply {
    Client::http1(gate.admin_address()).await.call(Ask::new(Method::POST, "/upgrade", empty())).await
}

/// An upgrade that succeeds.
async fn upgraded(gate: &Meshgate) -> Heir {
    let reply = upgrade(gate).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let pid = i32::try_from(reply.json()["pid"].as_i64().unwrap()).unwrap();
    Heir(Pid::from_raw(pid).unwrap())
}

fn proxy(one: &Backend) -> Setup {
    Meshgate::chain("")
        .top("drain: {timeout: 20s, spread: 100ms}")
        .cluster("one", &[one])
        .launched_by(BY_A_LINK)
}

/// Load over connections that are kept, and over one new connection for each request.
fn load(gate: &Meshgate) -> [Load; 2] {
    let judge = |reply: &Reply| if reply.status == 200 { Ok(()) } else { Err(format!("{reply:?}")) };
    [
        Load::start(gate.address(), 6, || Ask::get("/kept"), judge),
        Load::start(gate.address(), 3, || Ask::get("/new").header("connection", "close"), judge),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_under_load_lose_nothing() {
    let one = Backend::echo("one").await;
    let mut gate = proxy(&one).workers(2).start().await;
    let loads = load(&gate);
    let mut heirs: Vec<Heir> = Vec::new();
    for _ in 0..4 {
        for load in &loads {
            load.wait_for_more(100).await;
        }
        let heir = upgraded(&gate).await;
        match heirs.last() {
            None => assert!(gate.exited().await.success()),
            Some(before) => before.ended().await,
        }
        assert_eq!(gate.admin("/ready").await.status, 200);
        heirs.push(heir);
    }
    for load in loads {
        load.wait_for_more(100).await;
        load.stop().await.all_good();
    }
    heirs[3].terminate();
    heirs[3].ended().await;
}

#[tokio::test]
async fn what_cannot_be_handed_over_ends_by_itself() {
    let backend = meshgate_tests::WebSocketBackend::start().await;
    let setup = Meshgate::chain("").top("drain: {timeout: 20s}").cluster_of("one", &[backend.address()], "");
    let mut gate = setup.launched_by(BY_A_LINK).start().await;
    let mut open = WebSocket::connect(gate.address(), "/").await;
    open.echo("before").await;
    let heir = upgraded(&gate).await;
    open.echo("after").await;
    // For a moment both processes accept. Each has one connection, when the second one is with the new process.
    let mut new = until("a connection to the new process", || async {
        let mut new = WebSocket::connect(gate.address(), "/").await;
        new.echo("to the new process").await;
        if gate.metrics().await.sum("meshgate_downstream_connections_active", &[]) == 1.0 {
            return Some(new);
        }
        new.close().await;
        None
    })
    .await;
    open.close().await;
    assert!(gate.exited().await.success());
    new.echo("still").await;
    new.close().await;
    heir.terminate();
    heir.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_binary_that_fails_changes_nothing() {
    let one = Backend::echo("one").await;
    let setup = proxy(&one);
    let mut gate = setup.clone().top("upgrade: {timeout: 1s}").start().await;
    let good = std::fs::read_link(gate.path("meshgate")).unwrap();
    let loads = load(&gate);
    let script = |text: &str| {
        let path = gate.path("script");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(&path, gate.path("meshgate")).unwrap();
    };
    for (text, reason) in [
        ("exit 7", "exit status: 7"),
        ("kill -9 $$", "signal: 9"),
        ("echo almost >&0", "not ready"),
        ("exec sleep 60", "not ready within 1s"),
    ] {
        script(text);
        let reply = upgrade(&gate).await;
        assert_eq!(reply.status, 422, "{text}");
        assert!(reply.json()["errors"].as_str().unwrap().contains(reason), "{text}: {}", reply.text());
    }
    std::fs::remove_file(gate.path("meshgate")).unwrap();
    assert_eq!(upgrade(&gate).await.status, 422);

    // A good one that does not like the configuration.
    std::os::unix::fs::symlink(good, gate.path("meshgate")).unwrap();
    gate.replace("meshgate.yaml", setup.clone().listener("nonsense: 1").yaml());
    gate.refused().await;
    assert_eq!(upgrade(&gate).await.status, 422);
    assert_eq!(gate.metrics().await.sum("meshgate_upgrades_failed_total", &[]), 6.0);
    assert_eq!(gate.admin("/ready").await.status, 200);

    let before = gate.reload().await;
    gate.replace("meshgate.yaml", setup.yaml());
    gate.reloaded(&before).await;
    let heir = upgraded(&gate).await;
    assert!(gate.exited().await.success());
    for load in loads {
        load.wait_for_more(50).await;
        load.stop().await.all_good();
    }
    drop(heir);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_numbers_of_workers_share_the_sockets() {
    let one = Backend::echo("one").await;
    let mut gate = proxy(&one).workers(3).start().await;
    let loads = load(&gate);
    let mut last: Option<Heir> = None;
    for workers in [1, 2, 4] {
        for load in &loads {
            load.wait_for_more(100).await;
        }
        gate.replace("meshgate.yaml", proxy(&one).workers(workers).yaml());
        let heir = upgraded(&gate).await;
        match &last {
            None => assert!(gate.exited().await.success()),
            Some(before) => before.ended().await,
        }
        last = Some(heir);
    }
    for load in loads {
        load.wait_for_more(100).await;
        load.stop().await.all_good();
    }
}

#[tokio::test]
async fn unix_sockets_are_handed_over_with_their_files() {
    let one = Backend::echo("one").await;
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("web.sock");
    let yaml = |more: &str| {
        format!(
            "admin: {{address: \"127.0.0.1:0\"}}\nworkers: 2\nlisteners:\n\
             - {{name: web, address: \"127.0.0.1:0\", cluster: one}}\n\
             - {{name: local, address: \"unix:{}\", cluster: one}}\n{more}\
             clusters: [{{name: one, endpoints: [\"{}\"]}}]\n",
            path.display(),
            one.address()
        )
    };
    let other = folder.path().join("other.sock");
    let both = yaml(&format!("- {{name: other, address: \"unix:{}\", cluster: one}}\n", other.display()));
    let mut gate = Meshgate::with(&both).launched_by(BY_A_LINK).start().await;
    let inode =
        |path: &std::path::Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let before = inode(&path);
    assert!(other.exists());
    // The new one does without one of them.
    gate.replace("meshgate.yaml", yaml(""));
    let heir = upgraded(&gate).await;
    assert!(gate.exited().await.success());
    assert_eq!(inode(&path), before);
    assert_eq!(Client::unix(&path, false).await.get("/").await.status, 200);
    assert!(!other.exists());
    heir.terminate();
    heir.ended().await;
    assert!(!path.exists(), "the last one removes it");
}
