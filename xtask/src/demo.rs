//! `cargo xtask demo`: from nothing to a running proxy with three filters, two upstreams, and lines to try.
//!
//! To run, this process becomes Meshgate (so that signals reach it), and a child of ours (`demo-guide`) plays the
//! upstreams and prints the lines. To check, Meshgate is our child, and all ports are chosen by the system.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use meshgate_kit::{commands, package, say};

use crate::http::{self, Answer};
use crate::{filters, workspace};

const EXAMPLE: &str = "examples/quickstart/meshgate.yaml";

/// The addresses in the example, which the check replaces.
const WEB: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9901";
const UPSTREAMS: [(&str, &str); 2] = [("reviews-v1", "127.0.0.1:9001"), ("reviews-v2", "127.0.0.1:9002")];

/// The change that shows a reload.
const BEFORE: &str = "to: reviews-v1 ";
const AFTER: &str = "to: reviews-v2 ";

const LIMIT: Duration = Duration::from_secs(30);

/// Sets up, builds and runs until Ctrl-C.
pub(crate) fn run() -> Result<()> {
    let binary = prepare()?;
    for (_, address) in UPSTREAMS {
        // The child would say so, too, but Meshgate would go on without it.
        TcpListener::bind(address).with_context(|| format!("the demo's upstream needs {address}"))?;
    }
    let file = workspace::root().join(EXAMPLE);
    Command::new(std::env::current_exe()?)
        .arg("demo-guide")
        .spawn()
        .context("cannot start the demo's upstreams")?;
    let error = Command::new(&binary).args(["run", "-c"]).arg(&file).exec();
    Err(error).with_context(|| format!("cannot run {}", binary.display()))
}

/// The child of a running demo: the upstreams, and the lines to try once Meshgate is there.
pub(crate) fn guide() -> Result<()> {
    let meshgate = parent_id();
    for (name, address) in UPSTREAMS {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        http::serve(listener, name);
    }
    let (web, admin) = (WEB.parse()?, ADMIN.parse()?);
    let deadline = Instant::now() + LIMIT;
    while !is_ready(admin) {
        // Whatever went wrong, Meshgate has said it.
        if parent_id() != meshgate || Instant::now() > deadline {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    say("\nMeshgate runs. Try:\n");
    for line in lines() {
        say(&line.shown(&line.ask(web, admin)?));
    }
    say(&format!(
        "To see a reload, edit {EXAMPLE} (change `to: reviews-v1` into `to: reviews-v2`),\n\
         save it, and ask again. `curl http://{ADMIN}/reload` says what became of it. Ctrl-C ends the demo.\n"
    ));
    while parent_id() == meshgate {
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Sets up, builds, runs a copy of the example on other ports, tries every line and a reload, and ends it.
pub(crate) fn check() -> Result<()> {
    let binary = prepare()?;
    let mut yaml = fs::read_to_string(workspace::root().join(EXAMPLE))?;
    for (name, address) in UPSTREAMS {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        yaml = replace(&yaml, address, &listener.local_addr()?.to_string())?;
        http::serve(listener, name);
    }
    let [web, admin] = [free_address()?, free_address()?];
    yaml = replace(&yaml, WEB, &web.to_string())?;
    yaml = replace(&yaml, ADMIN, &admin.to_string())?;

    let folder = workspace::target().join(format!("demo-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let checked = check_in(&folder, &binary, &yaml, web, admin);
    fs::remove_dir_all(&folder)?;
    checked?;
    say("the demo answers as it says, and reloads");
    Ok(())
}

fn check_in(folder: &Path, binary: &Path, yaml: &str, web: SocketAddr, admin: SocketAddr) -> Result<()> {
    let file = folder.join("meshgate.yaml");
    fs::write(&file, yaml)?;
    let mut command = Command::new(binary);
    command.args(["run", "-c"]).arg(&file);
    let mut meshgate = Running(command.spawn().with_context(|| format!("cannot run {}", binary.display()))?);
    wait_for("Meshgate to be ready", || {
        ensure!(meshgate.0.try_wait()?.is_none(), "Meshgate ended");
        Ok(is_ready(admin))
    })?;
    for line in lines() {
        let answer = line.ask(web, admin)?;
        ensure!(line.holds(&answer), "`{}` answered {answer:?}", line.command);
        say(&line.shown(&answer));
    }

    fs::write(&file, replace(yaml, BEFORE, AFTER)?)?;
    let line = &lines()[0];
    wait_for("the reload to show", || Ok(line.ask(web, admin)?.body.starts_with("reviews-v2")))?;

    // Half a file is refused, and what ran goes on.
    fs::write(&file, &yaml[..yaml.len() / 2])?;
    wait_for("the refusal to show", || {
        Ok(http::get(admin, "/reload", &[])?.body.to_ascii_lowercase().contains("meshgate.yaml:"))
    })?;
    ensure!(line.ask(web, admin)?.status == 200, "a refused file changed what runs");
    meshgate.stop()
}

/// Builds everything; returns the binary.
fn prepare() -> Result<PathBuf> {
    filters::build()?;
    say("building meshgate (the first time takes some minutes)");
    // All programs, because then every crate has the same features as in `cargo xtask test`: wasmtime is compiled once.
    let mut build = Command::new(package::cargo());
    commands::run(build.current_dir(workspace::root()).args(["build", "--locked", "--workspace", "--bins"]))?;
    Ok(workspace::target().join("debug/meshgate"))
}

/// A line to try.
struct Line {
    command: String,
    to_admin: bool,
    path: &'static str,
    fields: &'static [(&'static str, &'static str)],
    expected: Expected,
}

/// What a line's answer is known to be.
enum Expected {
    /// This body.
    Body(&'static str),
    /// This status, which is all that is shown.
    Status(u16),
    /// Lines that begin like this, which are all that is shown.
    Metric(&'static str),
    /// This field, which is all that is shown.
    Field(&'static str, &'static str),
}

fn lines() -> Vec<Line> {
    let line = |options: &str, path, fields, expected| Line {
        command: format!("curl -s {options}http://{WEB}{path}"),
        to_admin: false,
        path,
        fields,
        expected,
    };
    let metric = "meshgate_http_requests_total";
    vec![
        line("", "/reviews/7", &[], Expected::Body("reviews-v1: GET /reviews/7\n")),
        line(
            "-H 'x-canary: true' ",
            "/reviews/7",
            &[("x-canary", "true")],
            Expected::Body("reviews-v2: GET /reviews/7\n"),
        ),
        line(
            "-o /dev/null -w '%header{x-served-by}\\n' ",
            "/reviews/7",
            &[],
            Expected::Field("x-served-by", "meshgate"),
        ),
        line("-o /dev/null -w '%{http_code}\\n' ", "/elsewhere", &[], Expected::Status(404)),
        Line {
            command: format!("curl -s http://{ADMIN}/metrics | grep ^{metric}"),
            to_admin: true,
            path: "/metrics",
            fields: &[],
            expected: Expected::Metric(metric),
        },
    ]
}

impl Line {
    fn ask(&self, web: SocketAddr, admin: SocketAddr) -> Result<Answer> {
        if !self.to_admin {
            return http::get(web, self.path, self.fields);
        }
        // An exchange is counted after its client has the answer, so the count may take a moment to be there.
        let mut answer = http::get(admin, self.path, self.fields)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.holds(&answer) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
            answer = http::get(admin, self.path, self.fields)?;
        }
        Ok(answer)
    }

    fn holds(&self, answer: &Answer) -> bool {
        match self.expected {
            Expected::Body(body) => answer.status == 200 && answer.body == body,
            Expected::Status(status) => answer.status == status,
            Expected::Field(name, value) => answer.field(name) == Some(value),
            Expected::Metric(name) => {
                // The lines before this one: two to the canary and its sibling, one for the field, one that found no route.
                let has = |label: &str| {
                    answer.body.lines().any(|line| line.starts_with(name) && line.contains(label))
                };
                ["route=\"reviews\"", "route=\"canary\"", "code=\"404\""].into_iter().all(has)
            }
        }
    }

    /// The command and what it prints, indented.
    fn shown(&self, answer: &Answer) -> String {
        let mut output: Vec<String> = match self.expected {
            Expected::Body(_) => answer.body.lines().map(str::to_owned).collect(),
            Expected::Status(_) => vec![answer.status.to_string()],
            Expected::Field(name, _) => vec![answer.field(name).unwrap_or_default().to_owned()],
            Expected::Metric(name) => {
                answer.body.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
            }
        };
        output.insert(0, format!("$ {}", self.command));
        output.iter().map(|line| format!("  {line}\n")).collect()
    }
}

/// A Meshgate that does not outlive us.
struct Running(Child);

impl Running {
    /// Lets it drain, and expects it to end well.
    fn stop(&mut self) -> Result<()> {
        commands::run(Command::new("kill").args(["-TERM", &self.0.id().to_string()]))?;
        let mut ended = None;
        wait_for("Meshgate to drain", || {
            ended = self.0.try_wait()?;
            Ok(ended.is_some())
        })?;
        match ended {
            Some(status) if status.success() => Ok(()),
            status => bail!("Meshgate ended with {status:?}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing can be done about a process that cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_ready(admin: SocketAddr) -> bool {
    http::get(admin, "/ready", &[]).is_ok_and(|answer| answer.status == 200)
}

/// Asks until the answer is yes.
fn wait_for(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !done()? {
        ensure!(Instant::now() < deadline, "waited {} s in vain for {what}", LIMIT.as_secs());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn replace(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.contains(from), "{EXAMPLE} does not contain {from:?} any more: the demo relies on it");
    Ok(text.replace(from, to))
}
