//! `meshgate check`: exit codes, and the messages for bad files, compared with golden files.
//!
//! `check/NAME.yaml` is a bad file, `check/NAME.txt` what is said about it. `BLESS=1` rewrites the latter: review the
//! difference like code, these messages are what an operator reads.

use std::path::PathBuf;

use meshgate_tests::{Meshgate, binary, guest, run, stamp};
use tokio::process::Command;

const GOOD: &str = "\
listeners: [{name: web, address: 127.0.0.1:8080, chain: web, cluster: one}]
chains: {web: [{telemetry: {}}]}
clusters: [{name: one, endpoints: [\"127.0.0.1:9001\"]}]
";

fn golden_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/check")
}

/// A line without the time at its beginning, if it is one of the log.
fn without_time(line: &str) -> String {
    match line.split_once("Z ") {
        Some((time, rest)) if time.len() > 18 && time.starts_with("20") => format!("{}\n", rest.trim_start()),
        _ => format!("{line}\n"),
    }
}

#[tokio::test]
async fn messages_are_as_reviewed() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut files: Vec<_> = std::fs::read_dir(golden_folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let modules = [("plain.wasm", guest("plain")), ("stamp.wasm", stamp(1)), ("empty.wasm", Vec::new())];
        let setup =
            modules.iter().fold(Meshgate::with(&text), |setup, (name, bytes)| setup.file(name, bytes));
        let finished = setup.check().await;
        assert_eq!(finished.code, Some(2), "{}: {finished:?}", file.display());
        let said: String = (finished.stdout + &finished.stderr).lines().map(without_time).collect();
        let golden = file.with_extension("txt");
        if bless {
            std::fs::write(&golden, &said).unwrap();
        } else if said != std::fs::read_to_string(&golden).unwrap_or_default() {
            wrong.push(format!("{} should be:\n{said}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn good_file_is_accepted() {
    let finished = Meshgate::with(GOOD).check().await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stderr.is_empty(), "{finished:?}");
}

#[tokio::test]
async fn check_opens_no_socket() {
    // The listener's port is taken: that is not the file's mistake.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let yaml = GOOD.replace("127.0.0.1:8080", &taken.local_addr().unwrap().to_string());
    assert_eq!(Meshgate::with(&yaml).check().await.code, Some(0));
    let finished = Meshgate::with(&yaml).start_refused().await;
    assert_ne!(finished.code, Some(0));
    assert!(finished.stderr.contains("meshgate.yaml:1:"), "{finished:?}");
}

#[tokio::test]
async fn all_mistakes_are_reported_at_once_with_their_places() {
    let yaml = "\
listeners:
  - {name: web, address: 127.0.0.1:8080, chain: wbe, cluster: one}
  - {name: web, address: nowhere, chain: web}
chains:
  web:
    - headers: {response: {sett: {x-a: b}}}
    - routing: {routes: [{name: only, match: {path: /**}, to: two}]}
    - unknown: {}
clusters:
  - {name: one, endpoints: [\"127.0.0.1:9001\"], connect_timeout: 5}
colour: red
";
    let finished = Meshgate::with(yaml).check().await;
    assert_eq!(finished.code, Some(2));
    let said = finished.stdout + &finished.stderr;
    for place in ["2:", "3:", "6:", "7:", "8:", "10:", "11:"] {
        let place = format!("meshgate.yaml:{place}");
        assert!(said.contains(&place), "nothing about {place}\n{said}");
    }
    assert!(said.contains("did you mean web") || said.contains("did you mean `web`"), "{said}");
}

#[tokio::test]
async fn filter_that_refuses_its_configuration_refuses_the_file() {
    for chain in
        ["- plain: {refuse: because}", "- routing: {routes: [{name: only, match: {path: /**}, to: nowhere}]}"]
    {
        let setup = Meshgate::chain(chain).guest("plain", "");
        let place = setup.place(chain);
        let finished = setup.check().await;
        assert_eq!(finished.code, Some(2), "{chain}: {finished:?}");
        let said = finished.stdout + &finished.stderr;
        assert!(said.contains(&place), "{chain}: {said}");
    }
}

#[tokio::test]
async fn missing_file_and_wrong_arguments_are_told() {
    let command = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(std::env::temp_dir());
        run(command)
    };
    for name in ["check", "run"] {
        for option in [&[][..], &["-c"], &["--config"]] {
            let arguments = [&[name], option, &["no-such-file.yaml"]].concat();
            let finished = command(&arguments).await;
            assert_eq!(finished.code, Some(2), "{arguments:?}: {finished:?}");
            assert!((finished.stdout + &finished.stderr).contains("no-such-file.yaml"), "{arguments:?}");
        }
        for arguments in [&[name][..], &[name, "a.yaml", "-c", "b.yaml"]] {
            let finished = command(arguments).await;
            assert_eq!(finished.code, Some(2), "{arguments:?}: {finished:?}");
            assert!(finished.stderr.contains("FILE"), "{arguments:?}: {finished:?}");
        }
    }
    let finished = command(&["--no-such-option"]).await;
    assert!(!matches!(finished.code, Some(0) | None), "{finished:?}");
    assert_eq!(command(&["--version"]).await.code, Some(0));
}

#[tokio::test]
async fn schema_is_printed() {
    let mut command = Command::new(binary());
    command.arg("schema");
    let finished = run(command).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let schema: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert!(schema["properties"]["listeners"].is_object(), "{schema:#}");
}
