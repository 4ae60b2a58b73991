//! Hostile guests in WebAssembly text: one file each under `tests/hostile`, with what must happen when it runs.
//!
//! A file begins with words for people (`;; …`) and directives (`;;!key: value`); then comes the guest: a whole
//! `(module …)`, or what is put into the frame, `tests/hostile/frame.wat`. [`KEYS`] says which directives there are.

use std::path::PathBuf;

use crate::command::repository;

/// The directives, and what each says.
pub const KEYS: &[(&str, &str)] = &[
    ("row", "the row of the list of attacks that the guest belongs to"),
    ("limits", "the filter's limits, as its entry in the configuration has them"),
    ("refused", "the module is refused when it is loaded, with a message that contains this"),
    ("unknown", "the module is loaded, and `/filters` names this import as unknown"),
    (
        "ask",
        "`length`: HTTP/1.1 with content-length; `large`: a body of 2 MiB; else HTTP/2 with body and trailers",
    ),
    (
        "attack",
        "what a request with `x-attack` gets: `STATUS`, `STATUS FLAG`, `broken`, alternatives separated by `|`",
    ),
    ("said", "the response's field `x-said`: numbers that the guest left, mostly statuses of hostcalls"),
    ("body", "`empty`: the response has no body"),
    (
        "upstream",
        "`kept`: the endpoint got the request with its target and authority; `none`: it got nothing",
    ),
    ("without", "no field of this name, in the request that the endpoint got or in the response"),
    ("calls", "how many HTTP calls of the guest arrived"),
    ("next", "what requests after the attack get; else they pass"),
    (
        "skip",
        "what the attack gets with `on_error: skip`; `no`: that is not tried; else it passes if `attack` is a 503",
    ),
    (
        "traps",
        "failed callbacks; else 1 if `attack` is a 503 with a flag, and 0 if not; `any`: not looked at",
    ),
    ("cause", "a failure of this cause is counted"),
    ("limit", "this limit was met, and counted"),
    ("log", "a line of the log contains this"),
    ("log-without", "`ESC`: no line of the log contains that character"),
    ("dropped-lines", "`yes`: log lines were dropped, and counted"),
];

/// A guest, and what its file says about it.
#[derive(Clone)]
pub struct HostileGuest {
    /// The file's name without `.wat`.
    pub name: String,
    /// The module.
    pub module: Vec<u8>,
    says: Vec<(String, String)>,
}

impl HostileGuest {
    /// All guests, by name.
    pub fn all() -> Vec<HostileGuest> {
        let folder = repository().join("tests/hostile");
        let frame = read(&folder.join("frame.wat"));
        let entries = std::fs::read_dir(&folder).expect("tests/hostile is there");
        let paths = entries.map(|entry| entry.expect("an entry of tests/hostile").path());
        let mut paths: Vec<PathBuf> = paths.filter(|path| !path.ends_with("frame.wat")).collect();
        paths.sort();
        paths.iter().map(|path| HostileGuest::read(path, &frame)).collect()
    }

    fn read(path: &PathBuf, frame: &str) -> HostileGuest {
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        let text = read(path);
        let mut says = Vec::new();
        for line in text.lines().filter_map(|line| line.strip_prefix(";;!")) {
            let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("{name}: no value in {line}"));
            assert!(KEYS.iter().any(|(known, _)| known == &key), "{name}: no directive {key}");
            says.push((key.to_owned(), value.trim().to_owned()));
        }
        let module = wat::parse_str(assemble(&text, frame)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let guest = HostileGuest { name, module, says };
        guest.row();
        let ends = ["refused", "attack"].iter().filter(|key| guest.says(key).is_some()).count();
        assert_eq!(ends, 1, "{}: either `refused` or `attack`", guest.name);
        guest
    }

    /// The value of a directive.
    pub fn says(&self, key: &str) -> Option<&str> {
        assert!(KEYS.iter().any(|(known, _)| *known == key), "no directive {key}");
        self.says.iter().find(|(said, _)| said == key).map(|(_, value)| value.as_str())
    }

    /// The row it belongs to.
    pub fn row(&self) -> u32 {
        let row = self.says("row").and_then(|row| row.parse().ok());
        row.unwrap_or_else(|| panic!("{}: no row", self.name))
    }

    /// Whether `outcome` (`STATUS FLAGS`, or `broken`) is one of the alternatives after `key`.
    pub fn allows(&self, key: &str, outcome: &str) -> bool {
        self.says(key).is_some_and(|wanted| {
            wanted.split('|').any(|wanted| {
                // A status alone goes with any flags.
                outcome == wanted || outcome.split(' ').next() == Some(wanted)
            })
        })
    }

    /// Whether the attack is answered by the policy for a filter that failed.
    pub fn fails(&self) -> bool {
        self.says("attack").is_some_and(|attack| attack.starts_with("503 "))
    }
}

/// The module's whole text.
fn assemble(text: &str, frame: &str) -> String {
    let is_whole = |line: &str| line.starts_with("(module") || line.starts_with("(component");
    if text.lines().any(is_whole) {
        return text.to_owned();
    }
    let mut module = format!("(module\n{frame}\n{text}\n");
    if !text.contains("\"proxy_on_memory_allocate\"") {
        module += "(func (export \"proxy_on_memory_allocate\") (param i32) (result i32)
            (call $allocate (local.get 0)))\n";
    }
    if text.contains("$say ") && !text.contains("\"proxy_on_response_headers\"") {
        module += "(func (export \"proxy_on_response_headers\") (param i32 i32 i32) (result i32)
            (call $speak) (i32.const 0))\n";
    }
    module + ")"
}

fn read(path: &PathBuf) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
