//! What systemd gives a service, and what it hears from it: sockets bound before, and the state of the process.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use meshgate_tests::{Backend, Client, binary, within};
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

/// Starts the proxy as systemd would, with this socket under the name `front`.
fn start(folder: &TempDir, socket: TcpListener) -> Child {
    // The socket comes as standard input and is moved to where systemd puts it; the process id stays over `exec`.
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$; export LISTEN_PID; exec \"$0\" run -c meshgate.yaml";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(binary()).current_dir(folder.path());
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "front");
    command.env("NOTIFY_SOCKET", folder.path().join("notify")).env("WATCHDOG_USEC", "40000");
    command.stdin(Stdio::from(OwnedFd::from(socket))).stdout(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true).spawn().expect("sh starts")
}

/// What the proxy says next, but for signs of life.
async fn said(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    loop {
        let length = within("a notification", manager.recv(&mut buffer)).await.unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text != "WATCHDOG=1" {
            return text;
        }
    }
}

#[tokio::test]
async fn sockets_are_taken_and_states_are_told() {
    let one = Backend::echo("one").await;
    let folder = TempDir::new().unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let configuration = |chain: &str| {
        let text = format!(
            "workers: 2\nlisteners: [{{name: front, address: \"127.0.0.1:1\", chain: web, cluster: one}}]\n\
             chains: {{web: {chain}}}\nclusters: [{{name: one, endpoints: [\"{}\"]}}]\n",
            one.address()
        );
        std::fs::write(folder.path().join("fresh"), text).unwrap();
        std::fs::rename(folder.path().join("fresh"), folder.path().join("meshgate.yaml")).unwrap();
    };
    configuration("[]");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut child = start(&folder, socket);

    assert_eq!(said(&manager).await, "READY=1");
    assert_eq!(Client::http1(address).await.get("/").await.status, 200);
    configuration("[headers: {response: {set: {x-new: \"1\"}}}]");
    let reloading = said(&manager).await;
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(said(&manager).await, "READY=1");
    assert_eq!(Client::http1(address).await.get("/").await.header("x-new"), "1");
    let mut buffer = [0; 16];
    let length = within("a sign of life", manager.recv(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..length], b"WATCHDOG=1");

    let id = i32::try_from(child.id().unwrap()).unwrap();
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_raw(id).unwrap(),
        rustix::process::Signal::TERM,
    );
    assert!(said(&manager).await.starts_with("STOPPING=1\n"));
    assert!(within("the process ends", child.wait()).await.unwrap().success());
}
