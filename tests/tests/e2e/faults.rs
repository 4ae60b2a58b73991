//! What goes wrong around the process: a defect in it, a disk that is full, a clock that jumps, a network that loses packets, a
//! machine that has no time. Traffic does not notice more of it than it must.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt;
use meshgate_tests::{
    Ask, Backend, Client, Load, Meshgate, Reply, Tally, WebSocket, WebSocketBackend, Wire, full, streamed,
    until, within,
};

fn is_good(reply: &Reply) -> Result<(), String> {
    if reply.status == 200 { Ok(()) } else { Err(format!("{reply:?}")) }
}

/// A panic is for a build with debug assertions to have: see `failpoint`.
#[tokio::test]
async fn a_panic_costs_one_request() {
    let one = Backend::echo("one").await;
    let launcher = "MESHGATE_PANIC_AT=/defect exec \"$0\" \"$@\"";
    let gate = Meshgate::chain("- telemetry: {}").cluster("one", &[&one]).launched_by(launcher).start().await;
    let mut other = gate.client().await;
    let mut multiplexed = Client::http2(gate.address()).await;
    assert_eq!(other.get("/").await.status, 200);
    let (mut sender, body) = streamed();
    let slow = multiplexed.begin(Ask::new(Method::POST, "/slow", body)).await.unwrap();
    if within("an end", gate.client().await.try_call(Ask::get("/defect"))).await.is_ok() {
        println!("skipped: a release build has no failpoint");
        return;
    }
    for _ in 0..20 {
        assert!(within("an end", multiplexed.try_call(Ask::get("/defect"))).await.is_err());
        assert!(within("an end", gate.client().await.try_call(Ask::get("/defect"))).await.is_err());
    }
    sender.send_data("whole".into()).await.unwrap();
    drop(sender);
    assert_eq!(
        within("an answer", slow).await.unwrap().status(),
        200,
        "on the connection of those that failed"
    );
    assert_eq!(multiplexed.get("/").await.status, 200);
    assert_eq!(other.get("/").await.status, 200);
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_panics_total", &[]), 41.0);
    assert_eq!(metrics.sum("meshgate_downstream_requests_active", &[]), 0.0);
    gate.log().wait("where it was", |line| line.contains("panic").then_some(())).await;
    gate.stop().await;
}

/// The loop of one worker ends; what the other one does is finished.
#[tokio::test]
async fn a_worker_that_is_lost_ends_the_process() {
    let one = Backend::echo("one").await;
    let launcher = "MESHGATE_PANIC_AT='defect on worker 1' exec \"$0\" \"$@\"";
    let setup = Meshgate::chain("").workers(2).cluster("one", &[&one]).launched_by(launcher);
    let mut gate = setup.top("drain: {timeout: 20s, spread: 0s}").start().await;
    // On one of the two workers each, as the kernel likes.
    let mut answers = Vec::new();
    for _ in 0..24 {
        let (mut sender, body) = streamed();
        let mut client = gate.client().await;
        let answer = client.begin(Ask::new(Method::POST, "/slow", body)).await.unwrap();
        sender.send_data("begun".into()).await.unwrap();
        answers.push((client, sender, answer));
    }
    one.wait_for_requests(24).await;
    let web = "listeners:\n";
    let more = format!("{web}  - {{name: defect, address: \"127.0.0.1:0\", cluster: one}}\n");
    gate.edit("meshgate.yaml", gate.setup().yaml().replace(web, &more));
    gate.log().wait("that it ends", |line| line.contains("a worker has ended").then_some(())).await;
    assert_eq!(gate.admin("/ready").await.status, 503);
    assert!(gate.metrics().await.sum("meshgate_panics_total", &[]) >= 1.0);
    let mut finished = 0;
    for (_client, sender, answer) in answers {
        drop(sender);
        finished += usize::from(within("an end", answer).await.is_ok_and(|answer| answer.status() == 200));
    }
    assert!((1..24).contains(&finished), "{finished} of 24 requests were finished");
    let status = within("the process ends", gate.exited()).await;
    assert_eq!(status.code(), Some(1));
}

/// So much load that a log which nobody takes is full.
async fn flood(gate: &Meshgate, requests: u64) -> Tally {
    let path = format!("/{}", "x".repeat(6000));
    let load = Load::start(gate.address(), 4, move || Ask::get(&path), is_good);
    load.wait_for_more(requests).await;
    load.stop().await
}

fn logging(one: &Backend, to: &str) -> meshgate_tests::Setup {
    Meshgate::with(&format!(
        "admin: {{address: \"127.0.0.1:0\"}}\n\
         access_log: {{format: json, to: {to}}}\n\
         workers: 1\n\
         listeners: [{{name: web, address: \"127.0.0.1:0\", cluster: one}}]\n\
         clusters: [{{name: one, endpoints: [\"{}\"]}}]\n",
        one.address()
    ))
}

async fn dropped(gate: &Meshgate) -> f64 {
    gate.metrics().await.sum("meshgate_access_log_lines_dropped_total", &[])
}

#[tokio::test]
async fn a_log_that_takes_nothing_costs_lines_and_no_request() {
    let one = Backend::answering("one", async |_, _| Ok(Response::new(full("answer")))).await;
    let gate = logging(&one, "/dev/full").start().await;
    let good = flood(&gate, 200).await.all_good();
    until("all lines are counted", || async { (dropped(&gate).await >= good as f64).then_some(()) }).await;

    // A pipe that nobody reads.
    let launcher = "mkfifo log && exec \"$0\" \"$@\"";
    let gate = logging(&one, "./log").launched_by(launcher).start().await;
    let load = async {
        let mut good = 0;
        while dropped(&gate).await == 0.0 {
            good += flood(&gate, 500).await.all_good();
        }
        good
    };
    assert!(within("lines are dropped", load).await > 0);
    assert_eq!(gate.admin("/ready").await.status, 200);
}

#[tokio::test]
async fn a_folder_of_logs_that_goes_and_comes_back() {
    let one = Backend::answering("one", async |_, _| Ok(Response::new(full("answer")))).await;
    let gate = logging(&one, "./logs/access.log").file("logs/keep", "").start().await;
    gate.get("/before").await;
    std::fs::remove_dir_all(gate.path("logs")).unwrap();
    gate.hang_up();
    gate.log().wait("the reason", |line| line.contains("cannot reopen the access log").then_some(())).await;
    flood(&gate, 50).await.all_good();
    std::fs::create_dir(gate.path("logs")).unwrap();
    gate.hang_up();
    let file = gate.path("logs/access.log");
    until("lines are written again", || async {
        gate.get("/again").await;
        std::fs::read_to_string(&file).is_ok_and(|log| log.contains("\"/again\"")).then_some(())
    })
    .await;
}

/// Where Debian and others put it.
fn faketime() -> Option<&'static str> {
    [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists())
}

#[tokio::test]
async fn a_clock_that_jumps_changes_stamps_and_nothing_else() {
    let Some(library) = faketime() else {
        println!("skipped: libfaketime is not installed");
        return;
    };
    let (ask, asked) = tokio::sync::watch::channel(false);
    let one = Backend::answering("one", move |seen, request| {
        let mut asked = asked.clone();
        async move {
            if seen.path == "/slow" {
                let _ = asked.wait_for(|now| *now).await;
            }
            request.into_body().collect().await.map_err(std::io::Error::other)?;
            Ok(Response::new(full("answer")))
        }
    })
    .await;
    let launcher = format!(
        "echo +0d > clock; exec env LD_PRELOAD={library} FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_NO_CACHE=1 \
         NO_FAKE_STAT=1 FAKETIME_TIMESTAMP_FILE=\"$PWD/clock\" \"$0\" \"$@\""
    );
    let setup = Meshgate::chain("")
        .listener("idle_timeout: 30s")
        .listener("request_timeout: 30s")
        .listener("body_timeout: 30s")
        .cluster("one", &[&one])
        .launched_by(&launcher);
    let gate = setup.clone().start().await;
    let load = Load::start(gate.address(), 2, || Ask::get("/load"), is_good);
    let mut idle = gate.client().await;
    assert_eq!(idle.get("/now").await.status, 200);
    let mut slow = gate.client().await;
    let slow = tokio::spawn(slow.begin(Ask::get("/slow")).await.unwrap());
    let (mut sender, body) = streamed();
    let mut upload = gate.client().await;
    let upload = upload.begin(Ask::new(Method::POST, "/upload", body)).await.unwrap();
    sender.send_data("first".into()).await.unwrap();
    for (number, jump) in ["+1d", "-1d", "+400d", "+0d"].into_iter().enumerate() {
        gate.replace("clock", jump);
        load.wait_for_more(50).await;
        assert_eq!(idle.get(&format!("/{jump}")).await.status, 200, "its connection is not old");
        assert!(!slow.is_finished());
        let before = gate.reload().await;
        gate.replace(
            "meshgate.yaml",
            setup.clone().top(&format!("drain: {{timeout: {}s}}", 10 + number)).yaml(),
        );
        gate.reloaded(&before).await;
    }
    let day = |path: &'static str| gate.access(path);
    let (now, later, earlier) = (day("/now").await, day("/+1d").await, day("/-1d").await);
    let stamp = |entry: &serde_json::Value| entry["start_time"].as_str().unwrap()[..10].to_owned();
    assert!(stamp(&earlier) < stamp(&now) && stamp(&now) < stamp(&later), "{earlier} {now} {later}");
    ask.send(true).unwrap();
    assert_eq!(within("an answer", slow).await.unwrap().unwrap().status(), 200);
    sender.send_data("last".into()).await.unwrap();
    drop(sender);
    assert_eq!(within("an answer", upload).await.unwrap().status(), 200);
    load.stop().await.all_good();
}

/// A network namespace behind a bad link; gone when dropped.
struct BadLink {
    name: String,
    near: String,
    far: String,
}

fn run(command: &str) -> bool {
    let ran = Command::new("sh").args(["-c", command]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

impl BadLink {
    /// `spoil` is run in the namespace. None where that is not permitted, or something for it is not installed.
    fn new(number: u32, spoil: &str) -> Option<BadLink> {
        let id = std::process::id() % 10_000;
        let (name, inside, outside) =
            (format!("mgt{number}-{id}"), format!("mgi{number}-{id}"), format!("mgo{number}-{id}"));
        let (near, far) = (format!("10.250.{number}.1"), format!("10.250.{number}.2"));
        let link = BadLink { name: name.clone(), near: near.clone(), far: far.clone() };
        let made = run(&format!(
            "ip netns add {name} && ip link add {outside} type veth peer name {inside} netns {name} \
             && ip addr add {near}/30 dev {outside} && ip link set {outside} up \
             && ip -n {name} addr add {far}/30 dev {inside} && ip -n {name} link set {inside} up \
             && ip -n {name} link set lo up && INSIDE={inside} ip netns exec {name} sh -c '{spoil}'"
        ));
        made.then_some(link)
    }

    async fn proxy(&self) -> (Meshgate, Backend) {
        let address: SocketAddr = format!("{}:0", self.near).parse().unwrap();
        let backend = Backend::echo_at("far", address).await;
        let yaml = format!(
            "admin: {{address: \"{far}:0\"}}\nworkers: 1\naccess_log: {{format: json}}\n\
             listeners: [{{name: web, address: \"{far}:0\", cluster: one}}]\n\
             clusters: [{{name: one, endpoints: [\"{}\"]}}]\n",
            backend.address(),
            far = self.far
        );
        let launcher = format!("exec ip netns exec {} \"$0\" \"$@\"", self.name);
        (Meshgate::with(&yaml).launched_by(&launcher).start().await, backend)
    }
}

impl Drop for BadLink {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.name));
    }
}

/// Bodies both ways that arrive as they were sent, over either protocol.
async fn bodies_pass(gate: &Meshgate, length: usize, times: usize) {
    let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let sent = Bytes::from(body);
    for http2 in [false, true] {
        let mut client =
            if http2 { Client::http2(gate.address()).await } else { Client::http1(gate.address()).await };
        for _ in 0..times {
            let reply = client.call(Ask::post("/echo", sent.clone())).await;
            assert_eq!((reply.status.as_u16(), &reply.json()["length"]), (200, &sent.len().into()));
        }
    }
}

#[tokio::test]
async fn a_link_that_loses_packets_loses_nothing_else() {
    let spoil = "nft \"add table inet t; add chain inet t c { type filter hook input priority 0; }; \
                 add rule inet t c meta l4proto tcp numgen random mod 100 < 5 drop\"";
    let Some(link) = BadLink::new(1, spoil) else {
        println!("skipped: no network namespace, or no nft");
        return;
    };
    let (gate, _backend) = link.proxy().await;
    bodies_pass(&gate, 200_000, 3).await;
    let load = Load::start(gate.address(), 8, || Ask::get("/"), is_good);
    load.wait_for_more(200).await;
    load.stop().await.all_good();
}

#[tokio::test]
async fn a_slow_link_is_only_slow() {
    let spoil = "tc qdisc add dev $INSIDE root tbf rate 1mbit burst 16kb latency 300ms";
    let Some(link) = BadLink::new(2, spoil) else {
        println!("skipped: no network namespace, or no tc");
        return;
    };
    let (gate, _backend) = link.proxy().await;
    // What the proxy passes on to the endpoint goes at 125 kB a second.
    bodies_pass(&gate, 150_000, 1).await;
    let load = Load::start(gate.address(), 8, || Ask::get("/"), is_good);
    load.wait_for_more(50).await;
    load.stop().await.all_good();
}

/// Processes that take all the time they can get; ended when dropped.
struct Hogs(Vec<Child>);

impl Hogs {
    fn new(count: usize) -> Hogs {
        let hog = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        Hogs((0..count).map(|_| hog()).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
            let _ = hog.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_without_time_is_only_slow() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- telemetry: {}").cluster("one", &[&one]).start().await;
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let hogs = Hogs::new(2 * cores.min(16));
    let load = Load::start(gate.address(), 8, || Ask::get("/"), is_good);
    for _ in 0..10 {
        load.wait_for_more(50).await;
        assert_eq!(gate.admin("/ready").await.status, 200);
    }
    load.stop().await.all_good();
    drop(hogs);
    assert_eq!(gate.metrics().await.sum("meshgate_downstream_connections_timed_out_total", &[]), 0.0);
}

/// All kinds of traffic at once, for `MESHGATE_SOAK_SECONDS` or a few; memory and files stay where they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak() {
    let seconds = std::env::var("MESHGATE_SOAK_SECONDS").map_or(6.0, |seconds| seconds.parse().unwrap());
    let (one, far, sockets) =
        (Backend::echo("one").await, Backend::http2_echo("two").await, WebSocketBackend::start().await);
    let chain = "- telemetry: {}\n- headers: {response: {set: {x-a: b}}}\n- routing: {routes: [{name: far, match: {path: /far}, to: far}, \
                 {name: sockets, match: {path: /socket}, to: sockets}, {name: rest, match: {path: /**}, to: one}]}";
    let gate = Meshgate::chain(chain)
        .workers(2)
        .cluster("one", &[&one])
        .cluster_of("far", &[far.address()], "protocol: http2")
        .cluster_of("sockets", &[sockets.address()], "")
        .start()
        .await;
    let address = gate.address();
    let loads = [
        Load::start(address, 3, || Ask::get("/kept"), is_good),
        Load::start(address, 2, || Ask::get("/new").header("connection", "close"), is_good),
        Load::start(address, 2, || Ask::post("/body", vec![b'x'; 100_000]), is_good),
        Load::start(address, 2, || Ask::post("/far", "small"), is_good),
    ];
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopping = std::sync::Arc::clone(&stop);
    let others = tokio::spawn(async move {
        while !stopping.load(std::sync::atomic::Ordering::Relaxed) {
            let mut socket = WebSocket::connect(address, "/socket").await;
            socket.echo("hello").await;
            socket.close().await;
            let mut client = Client::http2(address).await;
            for _ in 0..20 {
                assert_eq!(client.get("/http2").await.status, 200);
            }
            // One that leaves in the middle.
            let mut rude = Wire::connect(address).await;
            rude.write("POST /rude HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf").await;
            rude.reset();
        }
    });
    let rest = Duration::from_secs_f64(seconds / 2.0);
    tokio::time::sleep(rest).await;
    let (memory, files) = (gate.memory().0, gate.open_files());
    tokio::time::sleep(rest).await;
    let (memory_now, files_now) = (gate.memory().0, gate.open_files());
    let mut requests = 0;
    for load in loads {
        requests += load.stop().await.all_good();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    within("the last of the others", others).await.unwrap();
    println!("{requests} requests; memory {memory} to {memory_now}, files {files} to {files_now}");
    assert!(files_now < files + 50, "files: {files} to {files_now}");
    // What comes and goes with single connections is more than what a minute may leave behind.
    assert!(memory_now < memory + (12 << 20), "memory: {memory} to {memory_now}");
}
