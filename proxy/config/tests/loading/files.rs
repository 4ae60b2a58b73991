//! Loading from disk: what is read, what cannot be, and the list of files that a reloader watches.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use meshgate_config::{ModuleSource, load, load_text};

use crate::fake::Table;

const ROUTER: &str = "
listeners: [{name: web, address: 127.0.0.1:0, chain: web}]
chains:
  web: [stamp: {header: a, value: b}, stamp: {header: c, value: d}, telemetry, telemetry]
filters:
  stamp: {module: modules/stamp.wasm}
  unused: {module: ../raw.wasm}
";

#[test]
fn the_files_to_watch_are_listed_also_on_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meshgate.yaml");
    let expected =
        [path.clone(), folder.path().join("modules/stamp.wasm"), folder.path().join("../raw.wasm")];

    fs::write(&path, ROUTER).unwrap();
    let mut table = Table::default();
    let loaded = load(&path, &mut table);
    assert!(loaded.outcome.is_ok(), "{:?}", loaded.outcome);
    assert_eq!(loaded.files, expected);

    fs::write(&path, ROUTER.replace("telemetry", "telemtry")).unwrap();
    let loaded = load(&path, &mut Table::default());
    assert_eq!(loaded.outcome.unwrap_err().len(), 2);
    assert_eq!(loaded.files, expected);
}

#[test]
fn each_module_is_asked_once() {
    let mut table = Table::default();
    load_text("x", ROUTER, Path::new("/base"), &mut table).outcome.unwrap();
    let asked: Vec<(&ModuleSource, &usize)> = table.asked.iter().collect();
    let standard = ModuleSource::Standard("telemetry".to_owned());
    let stamp = ModuleSource::File("/base/modules/stamp.wasm".into());
    let raw = ModuleSource::File("/base/../raw.wasm".into());
    assert_eq!(asked, [(&standard, &1), (&raw, &1), (&stamp, &1)]);
}

#[test]
fn what_cannot_be_read_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.yaml");
    let said = |path: &Path| {
        let loaded = load(path, &mut Table::default());
        assert_eq!(loaded.files, [path]);
        loaded.outcome.unwrap_err().to_string()
    };
    assert!(said(&missing).starts_with(&format!("{}: cannot read the configuration: ", missing.display())));
    assert!(said(folder.path()).contains("cannot read the configuration"));

    let path = folder.path().join("meshgate.yaml");
    fs::write(&path, b"listeners:\n  - name: \xff\n").unwrap();
    assert!(said(&path).contains("not UTF-8: see line 2, column 11"), "{}", said(&path));

    fs::write(&path, vec![b'#'; (4 << 20) + 1]).unwrap();
    assert!(said(&path).contains("larger than 4 MiB"), "{}", said(&path));
}

#[test]
fn host_names_become_addresses() {
    let text = "
listeners: [{name: web, address: 127.0.0.1:0, cluster: a}]
clusters: [{name: a, endpoints: ['localhost:9001', '127.0.0.1:9001']}]
";
    let config = load_text("x", text, Path::new(""), &mut Table::default()).outcome.unwrap();
    let endpoints = &config.clusters[0].endpoints;
    let v4: SocketAddr = "127.0.0.1:9001".parse().unwrap();
    assert_eq!(endpoints.iter().filter(|endpoint| endpoint.address == v4.into()).count(), 1, "{endpoints:?}");

    // An empty label: no resolver asks anybody about that.
    let text = text.replace("localhost:", "no..such:");
    let errors = load_text("x", text, Path::new(""), &mut Table::default()).outcome.unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!((errors.0[0].at.line, errors.0[0].at.column), (3, 34));
    assert!(errors.0[0].message.starts_with("the endpoint `no..such:9001` does not resolve: "), "{errors}");
}

#[test]
fn later_errors_quote_the_file_too() {
    let config = load_text("m.yaml", ROUTER, Path::new(""), &mut Table::default()).outcome.unwrap();
    let error = config.source.diagnostic(config.listeners[0].at, "cannot bind: address in use", None);
    let line = "listeners: [{name: web, address: 127.0.0.1:0, chain: web}]";
    assert_eq!(
        error.to_string(),
        format!("m.yaml:2:34: cannot bind: address in use\n  2 | {line}\n    | {0:33}^", "")
    );
}

#[test]
fn a_filter_gets_what_is_in_a_marked_file() {
    const YAML: &str = "
listeners: [{name: web, address: 127.0.0.1:0, chain: web}]
chains: {web: [marks: {key_file: a.key, words: words.txt}]}
filters: {marks: {module: marks.wasm}}
";
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.key"), "secret").unwrap();
    let loaded = || load_text("x", YAML, folder.path(), &mut Table::default());
    let said = |loaded: meshgate_config::Load| loaded.outcome.unwrap_err().to_string();

    let missing = loaded();
    assert!(missing.files.contains(&at("words.txt")), "its coming into being is noticed");
    assert!(said(missing).contains("x:3:48: "), "{}", said(loaded()));
    fs::write(at("words.txt"), b"\xff").unwrap();
    assert!(said(loaded()).contains("the file is not UTF-8"), "{}", said(loaded()));

    fs::write(at("words.txt"), "one\ntwo\n").unwrap();
    let used = &loaded().outcome.unwrap().chains[0].filters[0];
    let expected = serde_json::json!({"key_file": at("a.key"), "words": "one\ntwo\n"});
    assert_eq!(used.configuration, meshgate_config::FilterConfiguration::Json(expected));
    assert_eq!(used.file_texts, [("/words".to_owned(), at("words.txt"))]);
}
