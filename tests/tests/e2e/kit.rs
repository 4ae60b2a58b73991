//! `meshgate filter …` as an author meets it: from nothing to a change that is live. What compiles nothing runs with the
//! other tests; the whole way takes the machine to itself, so `cargo xtask test` runs it afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use meshgate_tests::{Client, Finished, Lines, binary, repository, run, until};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

fn filter(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("filter").args(arguments).current_dir(folder);
    command
}

async fn refused(arguments: &[&str], folder: &Path) -> String {
    let finished = run(filter(arguments, folder)).await;
    assert_ne!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    assert!(finished.stdout.is_empty(), "{finished:?}");
    finished.stderr
}

#[tokio::test]
async fn mistakes_are_told_and_change_nothing() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    assert!(refused(&["new", "Not_A_Name"], at).await.contains("lowercase letters"));
    assert!(refused(&["new", "greeter", "--sdk", "nowhere"], at).await.contains("nowhere"));
    assert!(refused(&["build"], at).await.contains("filter new"));
    assert!(refused(&["test"], at).await.contains("filter new"));
    assert_eq!(std::fs::read_dir(at).unwrap().count(), 0, "something was written");

    let module = standard("headers");
    assert!(refused(&["test", "--module", &module], at).await.contains("there are no cases in cases"));
    std::fs::write(at.join("some.yaml"), "cases: [{name: x, expect: {respnse: {}}}]\n").unwrap();
    let said = refused(&["test", "some.yaml", "--module", &module], at).await;
    assert!(said.contains("some.yaml:1:28") && said.contains("`response`"), "{said}");
    std::fs::write(at.join("some.wasm"), b"\0asm\x01\0\0\0").unwrap();
    assert!(refused(&["inspect", "some.wasm"], at).await.contains("not a Proxy-Wasm module"));
}

fn standard(name: &str) -> String {
    repository().join(format!("target/filters/{name}.wasm")).display().to_string()
}

#[tokio::test]
async fn inspect_says_what_is_in_a_module() {
    let finished = run(filter(&["inspect", &standard("headers")], &repository())).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for part in [
        "Proxy-Wasm 0.2.1",
        "headers 0.1.0, built on SDK",
        "callbacks  proxy_on_",
        "env.proxy_add_header_map_value",
        "keys       request",
    ] {
        assert!(finished.stdout.contains(part), "{part} is not in\n{}", finished.stdout);
    }
    assert!(!finished.stdout.contains("UNIMPLEMENTED"), "{}", finished.stdout);
    let finished = run(filter(&["inspect", "--manifest", &standard("headers")], &repository())).await;
    let manifest: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(manifest["name"], "headers");
}

/// What a filter does not use is not in its module.
#[test]
fn a_filter_that_does_nothing_is_small() {
    let size = std::fs::metadata(repository().join("target/guests/noop.wasm")).unwrap().len();
    assert!(size <= 150 << 10, "{size}");
}

#[tokio::test]
async fn cases_pass_and_fail() {
    let folder = TempDir::new().unwrap();
    let good = r#"
config: {request: {set: {x-team: web}}, response: {remove: [server]}}
cases:
  - name: fields are set and removed
    upstream: {status: 201, headers: {server: acme, via: [one, two]}, body: made}
    request: {method: PUT, path: "/a?b=c", headers: {host: a.test, x-team: [one, two]}, body: abc}
    expect:
      upstream: {method: PUT, path: "/a?b=c", headers: {host: a.test, x-team: web}, body: abc}
      response: {status: 201, headers: {server: null, via: [one, two]}, body_contains: ad}
    then:
      - upstream: {fails: true}
        expect: {response: {status: 503}, upstream: {path: /}}
  - name: a bad configuration is refused
    config: {reqest: {}}
    expect: {refused: "unknown key `reqest`"}
"#;
    std::fs::write(folder.path().join("good.yaml"), good).unwrap();
    let arguments = ["test", ".", "--module", &standard("headers")];
    let finished = run(filter(&arguments, folder.path())).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("ok    fields are set and removed"), "{finished:?}");
    assert!(finished.stdout.ends_with("2 passed\n"), "{finished:?}");

    let bad = good.replace("x-team: web}, body: abc}", "x-team: mobile}, body: xyz}").replace("503", "200");
    std::fs::write(folder.path().join("worse.yaml"), bad.replace("unknown key", "no such")).unwrap();
    let finished = run(filter(&arguments, folder.path())).await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    for part in [
        r#"upstream: field x-team: ["mobile"] was expected, ["web"] came"#,
        r#"upstream: body "xyz" was expected, "abc" came"#,
        "response status: 200 was expected, 503 came",
        "the refusal should contain",
        "unknown key `reqest`",
        "2 passed, 2 failed",
    ] {
        assert!(finished.stdout.contains(part), "{part} is not in\n{}", finished.stdout);
    }
}

#[tokio::test]
async fn calls_delays_and_the_log_are_seen() {
    let module = repository().join("target/examples/caching-auth.wasm").display().to_string();
    let cases = "examples/caching-auth/cases.yaml";
    let finished = run(filter(&["test", cases, "--module", &module], &repository())).await;
    assert!(finished.stdout.ends_with("4 passed\n"), "{finished:?}");

    let folder = TempDir::new().unwrap();
    let text = std::fs::read_to_string(repository().join(cases)).unwrap();
    let text = text.replace("tokens: none", "tokens: {}").replace("took too long]", "took no time]");
    std::fs::write(folder.path().join("cases.yaml"), text).unwrap();
    let finished = run(filter(&["test", "cases.yaml", "--module", &module], folder.path())).await;
    for part in [
        "cluster tokens: 1 requests were expected, 0 came: none",
        "log: no line contains \"the call took no time\"",
        "WARN the call took too long",
        "2 passed, 2 failed",
    ] {
        assert!(finished.stdout.contains(part), "{part} is not in\n{}", finished.stdout);
    }
}

#[tokio::test]
async fn bench_measures_every_callback_of_a_case() {
    let folder = TempDir::new().unwrap();
    let cases = r#"
cases:
  - name: refused
    config: {reqest: {}}
    expect: {refused: reqest}
  - name: fields are set
    config: {request: {set: {x-team: web}}, response: {set: {x-by: us}}}
    request: {method: PUT, body: abc}
    upstream: {body: made}
    expect: {}
"#;
    std::fs::write(folder.path().join("some.yaml"), cases).unwrap();
    let headers = standard("headers");
    let measure = |arguments: &[&str]| {
        let arguments = [&["bench", &headers, "--cases", "some.yaml", "--seconds", "1"], arguments].concat();
        filter(&arguments, folder.path())
    };
    let finished = run(measure(&[])).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert!(lines[0].starts_with("headers: fields are set (some.yaml), "), "{finished:?}");
    for callback in
        ["context_create ", "request_headers ", "response_headers ", "done, log, delete ", "the exchange "]
    {
        assert!(
            lines.iter().any(|line| line.starts_with(callback)),
            "{callback} is not in\n{}",
            finished.stdout
        );
    }
    // The filter looks at no body, and calls nobody.
    for callback in ["request_body", "response_body", "http_call_response", "tick"] {
        assert!(!finished.stdout.contains(callback), "{callback} is in\n{}", finished.stdout);
    }
    for part in ["KiB a VM when it was warm", "compiled in", "started and configured in"] {
        assert!(finished.stdout.contains(part), "{part} is not in\n{}", finished.stdout);
    }

    let finished = run(measure(&["--case", "no such"])).await;
    assert!(
        finished.code == Some(1) && finished.stderr.contains("there is no case \"no such\""),
        "{finished:?}"
    );
    let finished = run(measure(&["--case", "refused"])).await;
    assert!(finished.code == Some(1) && finished.stderr.contains("reqest"), "{finished:?}");
}

#[tokio::test]
async fn bench_answers_calls_and_lets_time_pass() {
    let module = repository().join("target/examples/caching-auth.wasm").display().to_string();
    let cases = "examples/caching-auth/cases.yaml";
    let arguments =
        ["bench", &module, "--seconds", "1", "--cases", cases, "--case", "the service takes too long"];
    let finished = run(filter(&arguments, &repository())).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("answered by the filter itself: "), "{finished:?}");
    assert_eq!(often(&finished, "http_call_response"), "1.00", "{finished:?}");

    // Two sleeps, each ended by one tick: nobody waits for them.
    let folder = TempDir::new().unwrap();
    let cases = "config: {}\ncases: [{name: it sleeps, request: {headers: {x-do: sleep}}, expect: {}}]\n";
    std::fs::write(folder.path().join("some.yaml"), cases).unwrap();
    let module = repository().join("target/guests/suite.wasm").display().to_string();
    let arguments = ["bench", &module, "--seconds", "1", "--cases", "some.yaml"];
    let finished = run(filter(&arguments, folder.path())).await;
    assert_eq!(often(&finished, "tick"), "2.00", "{finished:?}");
}

/// Calls and streams of gRPC, answered by a case; both by sockets and without.
#[tokio::test]
async fn grpc_is_answered_as_the_case_says() {
    let folder = TempDir::new().unwrap();
    let cases = r#"
config: {}
cases:
  - name: calls
    clusters: {policy: {grpc: {messages: [{1: "yes", 4: 46}]}}}
    request: {headers: {x-do: grpc-ask}}
    expect:
      clusters: {policy: {path: /example.Policy/Check, headers: {x-a: "1"}, messages: [question]}}
      response: {status: 200}
  - name: a status
    clusters: {policy: {grpc: {status: 7, words: not you}}}
    request: {headers: {x-do: grpc-ask}}
    expect: {response: {status: 502}, log: ["gRPC status 7: not you"]}
  - name: a stream
    clusters: {talk: {grpc: {messages: [one, two]}}}
    request: {headers: {x-do: stream}}
    expect:
      clusters: {talk: {path: /example.Talk/Talk, messages: [one, two]}}
      upstream: {headers: {x-said: '9 :status,content-type None 0 [one, two, end] None end'}}
  - name: message by message
    clusters: {talk: {grpc: {messages: [a, b, c], each: true}}}
    request: {headers: {x-do: stream-lockstep}}
    expect: {upstream: {headers: {x-said: a|b|c}}}
"#;
    std::fs::write(folder.path().join("some.yaml"), cases).unwrap();
    let module = repository().join("target/guests/suite.wasm").display().to_string();
    let test = ["test", "some.yaml", "--module", &module];
    let finished = run(filter(&test, folder.path())).await;
    assert!(finished.stdout.ends_with("4 passed\n"), "{finished:?}");
    // Of a stream: what comes first, each message, and the end, which is heard of a stream that is dropped, too.
    for (case, often_called) in [("calls", "1.00"), ("a stream", "4.00"), ("message by message", "5.00")] {
        let arguments = ["bench", &module, "--seconds", "1", "--cases", "some.yaml", "--case", case];
        let finished = run(filter(&arguments, folder.path())).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert_eq!(often(&finished, "grpc"), often_called, "{case}: {finished:?}");
    }
    std::fs::write(folder.path().join("some.yaml"), cases.replace("[question]", "[{1: a}]")).unwrap();
    let finished = run(filter(&test, folder.path())).await;
    let difference = r#"the messages {1: "a"} were expected, "question" came"#;
    assert!(finished.stdout.contains(difference), "{finished:?}");
    std::fs::write(folder.path().join("some.yaml"), cases.replace("{1: \"yes\"", "{one: \"yes\"")).unwrap();
    let finished = run(filter(&test, folder.path())).await;
    assert!(
        finished.code == Some(1) && finished.stderr.contains("\"one\" is no field's number"),
        "{finished:?}"
    );
}

#[tokio::test]
async fn bench_says_how_a_filter_gets_its_configuration() {
    let folder = TempDir::new().unwrap();
    let arguments = ["bench", &repository().join("target/examples/caching-auth.wasm").display().to_string()];
    let finished = run(filter(&arguments, folder.path())).await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("--cases PATH"), "{finished:?}");
}

#[tokio::test]
async fn bench_tells_programs_in_json() {
    let module = standard("headers");
    let cases = repository().join("benches/filters/headers.yaml").display().to_string();
    let finished =
        run(filter(&["bench", &module, "--cases", &cases, "--seconds", "1", "--json"], &repository())).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(report["filter"], "headers");
    let exchange = &report["exchange"];
    let parts: u64 = ["context_create", "request_headers", "response_headers", "done, log, delete"]
        .iter()
        .map(|part| &report["callbacks"][part])
        .inspect(|part| assert_eq!(part["count"], exchange["count"], "{report}"))
        .map(|part| part["copied"].as_u64().unwrap())
        .sum();
    // The name and the value of the field.
    assert!(parts == exchange["copied"].as_u64().unwrap() && parts >= 9, "{report}");
    assert!(exchange["p50"].as_u64() <= exchange["p99"].as_u64(), "{report}");
}

/// What `cargo xtask bench filters` measures is what the filters do.
#[tokio::test]
async fn each_standard_filter_has_a_case_for_the_benches() {
    let folders = std::fs::read_dir(repository().join("filters")).unwrap();
    let mut names: Vec<_> =
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let cases = repository().join(format!("benches/filters/{name}.yaml")).display().to_string();
        let finished = run(filter(&["test", &cases, "--module", &standard(&name)], &repository())).await;
        assert_eq!(finished.code, Some(0), "{name}: {finished:?}");
    }
}

/// How often this callback ran in one exchange.
fn often<'a>(finished: &'a Finished, callback: &str) -> &'a str {
    let line = finished.stdout.lines().find_map(|line| line.strip_prefix(callback));
    line.and_then(|line| line.split_whitespace().next()).unwrap_or_default()
}

fn cargo(verb: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(verb);
    command
}

/// A crate outside of this repository's workspace. What was compiled for it is kept for the next run.
struct Author {
    folder: PathBuf,
}

impl Author {
    async fn begin(name: &str) -> Author {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kit");
        let folder = home.join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&home).unwrap();
        let finished = run(filter(&["new", name], &home)).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        // The versions that this repository was tested with, and that lie on this machine.
        std::fs::copy(repository().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
        Author { folder }
    }

    fn prepared(&self, mut command: Command) -> Command {
        command.current_dir(&self.folder).kill_on_drop(true);
        command.env("CARGO_TARGET_DIR", self.folder.with_file_name("target"));
        command
    }

    /// Runs to the end, however long the compiler takes.
    async fn run(&self, command: Command) -> Finished {
        let mut command = self.prepared(command);
        let output =
            tokio::time::timeout(Duration::from_secs(1_200), command.output()).await.unwrap().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Finished { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    async fn filter(&self, arguments: &[&str]) -> String {
        let finished = self.run(filter(arguments, &self.folder)).await;
        assert_eq!(finished.code, Some(0), "{arguments:?}: {}\n{}", finished.stdout, finished.stderr);
        finished.stdout
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.folder.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in\n{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }
}

#[tokio::test]
#[ignore = "compiles a crate for minutes: `cargo xtask test` runs it by itself"]
async fn from_nothing_to_a_change_that_is_live() {
    let author = Author::begin("greeter").await;
    let finished = author.run(cargo("test")).await;
    assert!(finished.stdout.contains("it_greets_and_signs ... ok"), "{finished:?}");

    author.filter(&["build"]).await;
    let inspected = author.filter(&["inspect", "target/filters/greeter.wasm"]).await;
    assert!(inspected.contains("greeting (required)  How to greet."), "{inspected}");
    assert!(author.filter(&["test"]).await.ends_with("3 passed\n"));

    author.edit("meshgate.yaml", "127.0.0.1:9901", "127.0.0.1:0");
    author.edit("meshgate.yaml", "127.0.0.1:8080", "127.0.0.1:0");
    let mut dev = author.prepared(filter(&["dev"], &author.folder));
    dev.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut dev = dev.spawn().unwrap();
    let log = Lines::collect(dev.stderr.take().unwrap());
    let address = log
        .wait("listening", |line| line.split_once("listening listener=web address=")?.1.trim().parse().ok())
        .await;
    let greeted = || async { Client::http1(address).await.get("/hello").await.text() };
    assert_eq!(greeted().await, "Hello, world!\n");

    author.edit("src/lib.rs", "{name}!", "dear {name}!");
    until("the change is live", || async { (greeted().await == "Hello, dear world!\n").then_some(()) }).await;
    author.edit("src/lib.rs", "dear {name}!", "{nobody}!");
    log.wait("the compiler's error", |line| line.contains("waiting for a change").then_some(())).await;
    assert_eq!(greeted().await, "Hello, dear world!\n");
    author.edit("src/lib.rs", "{nobody}!", "good {name}!");
    until("the mended one is live", || async { (greeted().await == "Hello, good world!\n").then_some(()) })
        .await;
    // Told to end, it lets Meshgate drain, and ends with it.
    let id = dev.id().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let serving: i32 = children.split_whitespace().next().unwrap().parse().unwrap();
    let id = rustix::process::Pid::from_raw(id.cast_signed()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(60), dev.wait()).await.unwrap().unwrap().code(),
        Some(0)
    );
    assert!(!Path::new(&format!("/proc/{serving}")).exists(), "Meshgate is left");
}

/// What the compiler says about mistakes that are easily made: where it is, and what was meant.
#[tokio::test]
#[ignore = "compiles a crate for minutes: `cargo xtask test` runs it by itself"]
async fn mistakes_in_a_filter_are_said_clearly() {
    let author = Author::begin("mistaken").await;
    let whole = std::fs::read_to_string(author.folder.join("src/lib.rs")).unwrap();
    let mistakes = [
        (
            "fn on_request(",
            "fn on_http_request_headers(",
            "a filter has no `on_http_request_headers`; write `on_request`",
        ),
        (
            "fn on_request(",
            "fn on_requests(",
            "a filter has no `on_requests`; its callbacks are `on_request`,",
        ),
        (
            "fn on_response(&self, exchange: &Exchange<Self>) -> Outcome",
            "async fn on_log(&self, exchange: &Exchange<Self>)",
            "`on_log` cannot be `async`: nobody waits for it",
        ),
        (
            "#[filter]\nimpl Filter for",
            "#[filter]\nimpl",
            "#[filter] stands before `impl Filter for Type { … }`",
        ),
        ("#[filter]\n", "#[filter(http)]\n", "#[filter] takes no arguments, but for a filter of both"),
        (
            "#[derive(Deserialize, JsonSchema)]",
            "#[derive(Deserialize)]",
            "the trait bound `Config: JsonSchema` is not satisfied",
        ),
        ("greeting: config.greeting }", "greting: config.greeting }", "has no field named `greting`"),
        ("fn configure(config: Config)", "fn configured(config: Config)", "missing: `configure`"),
    ];
    for (from, to, expected) in mistakes {
        std::fs::write(author.folder.join("src/lib.rs"), &whole).unwrap();
        author.edit("src/lib.rs", from, to);
        let finished = author.run(cargo("check")).await;
        assert!(finished.code != Some(0) && finished.stderr.contains(expected), "{to}: {}", finished.stderr);
        assert!(finished.stderr.contains("--> src/lib.rs:"), "{to}: {}", finished.stderr);
    }
}
