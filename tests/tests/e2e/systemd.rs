//! What systemd gives a service, and what it hears from it: sockets bound before, and the state of the process.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use meshgate_tests::{Backend, Client, binary, within};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

/// Starts the proxy as systemd would, with this socket under the name `front`.
fn start(folder: &TempDir, socket: impl Into<OwnedFd>) -> Child {
    // The socket comes as standard input and is moved to where systemd puts it; the process id stays over `exec`.
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$; export LISTEN_PID; exec \"$0\" run -c meshgate.yaml";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(binary()).current_dir(folder.path());
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "front");
    command.env("NOTIFY_SOCKET", folder.path().join("notify")).env("WATCHDOG_USEC", "40000");
    command.stdin(Stdio::from(socket.into())).stdout(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true).spawn().expect("sh starts")
}

fn kill(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
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

    kill(&child, Signal::TERM);
    assert!(said(&manager).await.starts_with("STOPPING=1\n"));
    assert!(within("the process ends", child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn sockets_may_be_unix_sockets() {
    let one = Backend::echo("one").await;
    let folder = TempDir::new().unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let path = folder.path().join("front.sock");
    // By its name, wherever the configuration would have it; and by its address, whatever its name.
    for (name, address) in [("front", folder.path().join("elsewhere.sock")), ("other", path.clone())] {
        let text = format!(
            "workers: 2\nlisteners: [{{name: {name}, address: \"unix:{}\", cluster: one}}]\n\
             clusters: [{{name: one, endpoints: [\"{}\"]}}]\n",
            address.display(),
            one.address()
        );
        std::fs::write(folder.path().join("meshgate.yaml"), text).unwrap();
        let mut child = start(&folder, UnixListener::bind(&path).unwrap());
        assert_eq!(said(&manager).await, "READY=1");
        for http2 in [false, true] {
            assert_eq!(Client::unix(&path, http2).await.get("/").await.status, 200);
        }
        assert!(!folder.path().join("elsewhere.sock").exists());
        kill(&child, Signal::TERM);
        assert!(within("the process ends", child.wait()).await.unwrap().success());
        assert!(said(&manager).await.starts_with("STOPPING=1\n"));
        assert!(path.exists(), "it is systemd's");
        std::fs::remove_file(&path).unwrap();
    }
}

/// A process that is nobody's child; killed when dropped.
struct Orphan(Pid);

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[tokio::test]
async fn a_process_that_takes_over_is_the_services_main_one() {
    let one = Backend::echo("one").await;
    let folder = TempDir::new().unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let text = format!(
        "listeners: [{{name: front, address: \"127.0.0.1:1\", cluster: one}}]\n\
         clusters: [{{name: one, endpoints: [\"{}\"]}}]\n",
        one.address()
    );
    std::fs::write(folder.path().join("meshgate.yaml"), text).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut child = start(&folder, socket);
    assert_eq!(said(&manager).await, "READY=1");
    kill(&child, Signal::USR2);
    // The new one says for itself that it is ready; systemd listens to it when the old one has said who it is.
    let mut told = [said(&manager).await, said(&manager).await];
    told.sort();
    let [main, ready] = told;
    assert_eq!(ready, "READY=1");
    let pid = main.strip_prefix("MAINPID=").and_then(|rest| rest.strip_suffix("\nREADY=1")).unwrap();
    let new = Orphan(Pid::from_raw(pid.parse().unwrap()).unwrap());
    assert!(within("the old process ends", child.wait()).await.unwrap().success());
    assert_eq!(Client::http1(address).await.get("/").await.status, 200);
    kill_process(new.0, Signal::TERM).unwrap();
    assert!(said(&manager).await.starts_with("STOPPING=1\n"));
}
