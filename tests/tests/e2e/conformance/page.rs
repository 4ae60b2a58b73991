//! `docs/proxy-wasm-support.md` and this suite, line by line: what the page lists is tested, and what is tested is listed.
//! Most is found in the suite's tables; what a table cannot say is named here beside the test that says it.

use std::collections::{BTreeMap, BTreeSet};

use meshgate_tests::repository;

use super::arguments::TABLES;
use super::matrix::{ALL, NOWHERE, PHASES, Row};
use super::paths::{PROPERTIES, Property};
use super::script::{Arg, BAD_ARGUMENT, OK};
use super::{foreign_functions, http_calls, initialize, paths, returns, switches, tcp, toolchains, versions};

/// A test, so that none can go away unnoticed.
type Test = fn();

/// Functions that no table calls.
const FUNCTIONS: &[(&str, Test)] = &[
    ("abort", toolchains::a_guest_that_aborts),
    ("emscripten_notify_memory_growth", toolchains::what_they_answer),
    ("proc_exit", toolchains::a_guest_that_exits),
    ("seed", toolchains::what_they_answer),
];

/// Callbacks that come in no run of a table.
const CALLBACKS: &[(&str, Test)] = &[
    ("_initialize", initialize::in_either_function),
    ("_start", initialize::in_either_function),
    ("main", initialize::mains_of_c),
    ("__main_void", initialize::mains_of_c),
    ("proxy_on_memory_allocate", initialize::memory_comes_from_the_guest),
    ("malloc", initialize::memory_comes_from_the_guest),
    ("proxy_validate_configuration", versions::callbacks_that_do_not_come),
    ("proxy_on_request_metadata", versions::callbacks_that_do_not_come),
    ("proxy_on_response_metadata", versions::callbacks_that_do_not_come),
    ("envoy_on_resolve_dns", versions::callbacks_that_do_not_come),
    ("envoy_on_stats_update", versions::callbacks_that_do_not_come),
    ("proxy_on_redis_call_response", versions::callbacks_that_do_not_come),
];

/// Properties that the table's exchange does not have: the paths that a test reads of another one.
const PROPERTIES_ELSEWHERE: &[(&[&str], Test)] = &[
    (&paths::OF_DYNAMIC_METADATA, paths::of_dynamic_metadata),
    (&paths::OF_ENDPOINTS, paths::of_endpoints),
    (&paths::OF_FAILURES, paths::of_other_exchanges),
    (&paths::OF_GRPC, paths::of_other_exchanges),
    (&paths::OF_THE_FILTER_STATE, paths::of_the_filter_state),
    (&paths::OF_TLS, paths::of_tls),
    (&paths::OF_TLS_TO_THE_ENDPOINT, paths::of_tls_to_the_endpoint),
];

/// The lines about versions, by how they begin.
const VERSIONS: &[(&str, &[Test])] = &[
    ("a module says its version", &[versions::the_first_export_counts]),
    ("functions of all versions", &[versions::the_first_export_counts]),
    ("a field or a map that is not there", &[versions::the_first_export_counts]),
    ("`proxy_on_request_headers`", &[versions::header_callbacks_have_two_parameters_or_three]),
    (
        "an import that is not there",
        &[
            toolchains::what_they_answer,
            versions::an_import_that_is_not_there_and_returns_no_status_ends_the_callback,
        ],
    ),
    ("an import that is no function", &[versions::only_functions_can_be_imported]),
];

/// The keys under "Switches".
const SWITCHES: &[(&str, Test)] = &[
    ("root_id", paths::in_either_form),
    ("vm_configuration", switches::what_a_vm_is_given),
    ("environment", switches::environment),
    ("properties", paths::in_either_form),
    ("failed_calls", http_calls::failures_come_as_responses_or_as_nothing),
    ("allocator", initialize::memory_comes_from_the_guest),
    ("stop_iteration", returns::of_headers_that_are_held),
    ("absent_maps", switches::absent_maps),
    ("null_values", switches::null_values),
];

/// A line of a table.
struct Line {
    section: String,
    /// The first cell of the table's head.
    of: String,
    cells: Vec<String>,
}

fn page() -> String {
    std::fs::read_to_string(repository().join("docs/proxy-wasm-support.md")).expect("the page")
}

fn lines() -> Vec<Line> {
    let (mut section, mut head) = (String::new(), None);
    let mut lines = Vec::new();
    for text in page().lines() {
        if let Some(title) = text.strip_prefix('#') {
            title.trim_start_matches('#').trim().clone_into(&mut section);
        }
        let Some(row) = text.strip_prefix("| ") else {
            if !text.starts_with('|') {
                head = None;
            }
            continue;
        };
        let cells: Vec<_> = row.trim_end_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        match &head {
            None => head = cells.first().cloned(),
            Some(of) => lines.push(Line { section: section.clone(), of: of.clone(), cells }),
        }
    }
    lines
}

/// What stands between backquotes.
fn names(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

fn listed(of: impl Fn(&Line) -> bool) -> BTreeSet<String> {
    lines()
        .iter()
        .filter(|line| of(line))
        .flat_map(|line| names(&line.cells[0]).collect::<Vec<_>>())
        .collect()
}

/// Fails with what is on one side only.
fn same(what: &str, listed: &BTreeSet<String>, tested: &BTreeSet<String>) {
    let untested: Vec<_> = listed.difference(tested).collect();
    let unlisted: Vec<_> = tested.difference(listed).collect();
    assert!(
        untested.is_empty() && unlisted.is_empty(),
        "{what}: without a test {untested:?}, without a line {unlisted:?}"
    );
    assert!(!listed.is_empty(), "{what}");
}

fn rows() -> impl Iterator<Item = &'static Row> {
    TABLES.iter().flat_map(|table| table.iter())
}

fn function_of(row: &Row) -> &'static str {
    row.function.trim_start_matches("unstable.")
}

#[test]
fn functions() {
    let is_function = |line: &Line| line.of == "function" && line.section != "Foreign functions";
    let beside =
        toolchains::ANSWERS.iter().map(|(_, name, ..)| *name).filter(|name| *name != "no_such_function");
    let elsewhere = FUNCTIONS.iter().map(|(name, _)| *name);
    let tested = rows().map(function_of).chain(beside).chain(elsewhere).map(str::to_owned).collect();
    same("functions", &listed(is_function), &tested);
}

#[test]
fn every_function_is_called_in_every_callback() {
    let mut called: BTreeMap<&str, _> = BTreeMap::new();
    for row in rows() {
        let phases = called.entry(row.function).or_insert(NOWHERE);
        for (phase, _) in PHASES.into_iter().filter(|(phase, _)| row.expected(*phase).is_some()) {
            *phases = phases.or(phase);
        }
    }
    let missing: Vec<_> =
        called.iter().filter(|(_, phases)| !phases.contains(ALL)).map(|(name, _)| name).collect();
    assert!(missing.is_empty(), "not in every callback: {missing:?}");
    // WASI under both of its names.
    let wasi = called.keys().filter(|name| !name.starts_with("proxy_") && **name != "pthread_equal");
    for name in wasi.filter(|name| !name.starts_with("unstable.")) {
        assert!(called.contains_key(&*format!("unstable.{name}")), "{name}");
    }
}

/// Functions that answer always the same: the page says what.
#[test]
fn fixed_answers() {
    let fixed = |line: &Line| {
        let code = line.cells.get(2)?.split(':').next()?.parse::<u32>().ok()?;
        (line.cells[1] == "no").then(|| (names(&line.cells[0]).collect::<Vec<_>>(), code))
    };
    let mut compared = 0;
    for (functions, code) in lines().iter().filter_map(fixed) {
        for name in functions {
            let tables = rows().filter(|row| function_of(row) == name).flat_map(|row| row.expected);
            let beside = toolchains::ANSWERS
                .iter()
                .filter(|(_, known, ..)| *known == name)
                .map(|(.., answer)| *answer);
            let answers: BTreeSet<_> = tables.map(|(_, status)| *status).chain(beside).collect();
            assert_eq!(answers, BTreeSet::from([code]), "{name}");
            compared += 1;
        }
    }
    assert!(compared > 15, "{compared}");
}

/// The numbers before the names in the tables of buffers and maps.
fn numbers(of: &str) -> BTreeSet<i64> {
    let lines = lines();
    let cells = lines.iter().filter(|line| line.of == of).map(|line| line.cells[0].replace(['`', ','], ""));
    cells.flat_map(|cell| cell.split(' ').filter_map(|word| word.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Buffers and maps: every function for each of them, and for a number behind the last.
#[test]
fn buffers_and_maps() {
    for (of, functions) in [
        ("buffer", &["proxy_get_buffer_bytes", "proxy_set_buffer_bytes", "proxy_get_buffer_status"][..]),
        (
            "map",
            &[
                "proxy_get_header_map_size",
                "proxy_get_header_map_pairs",
                "proxy_set_header_map_pairs",
                "proxy_get_header_map_value",
                "proxy_add_header_map_value",
                "proxy_replace_header_map_value",
                "proxy_remove_header_map_value",
            ],
        ),
    ] {
        let listed = numbers(of);
        assert!(listed.len() > 7, "{of}: {listed:?}");
        for function in functions {
            let calls = rows().filter(|row| row.function == *function);
            let tested: BTreeSet<_> = calls
                .filter_map(|row| match row.arguments[0] {
                    Arg::N(number) => Some(number),
                    _ => None,
                })
                .collect();
            let (known, unknown): (BTreeSet<_>, BTreeSet<_>) =
                tested.into_iter().partition(|number| listed.contains(number));
            assert_eq!(known, listed, "{function}");
            assert!(!unknown.is_empty(), "{function}: no {of} that does not exist");
        }
    }
}

#[test]
fn callbacks() {
    let of_http = PHASES.iter().map(|(_, name)| *name);
    let in_runs =
        of_http.chain(tcp::CALLBACKS).map(|name| format!("proxy_on_{}", name.trim_start_matches("root_")));
    let tested = in_runs.chain(CALLBACKS.iter().map(|(name, _)| (*name).to_owned())).collect();
    let is_callback = |line: &Line| line.of == "callback" && line.section == "Callbacks";
    same("callbacks", &listed(is_callback), &tested);
}

/// Every number that a callback may return; what is not known is tested by another number.
#[test]
fn what_callbacks_return() {
    let mut of = String::new();
    let mut listed: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for line in lines().iter().filter(|line| line.section == "What callbacks return") {
        if !line.cells[0].is_empty() {
            line.cells[0].clone_into(&mut of);
        }
        let numbers = line.cells[1].split([' ', ',']).filter_map(|word| word.parse::<u32>().ok());
        listed.entry(of.clone()).or_default().extend(numbers);
    }
    let tested = |answers: &[(u32, returns::Meaning)]| {
        answers.iter().map(|(answer, _)| *answer).collect::<BTreeSet<_>>()
    };
    for (of, tested) in [
        ("headers", tested(returns::HEADERS)),
        ("body", tested(returns::BODY)),
        ("trailers", tested(returns::TRAILERS)),
        ("TCP", tcp::ANSWERS.iter().map(|(answer, _)| *answer).collect()),
    ] {
        let listed = listed.remove(of).unwrap_or_else(|| panic!("no line about {of}"));
        assert!(listed.is_subset(&tested) && !listed.is_empty(), "{of}: {listed:?}, tested {tested:?}");
        assert!(tested.contains(&99), "{of}: a number that is not known");
    }
    assert!(listed.is_empty(), "{listed:?}");
}

#[test]
fn property_paths() {
    let mut listed = BTreeSet::new();
    for line in lines().iter().filter(|line| line.of == "path") {
        // `.id` in a cell goes on from each whole path in it.
        let (ends, whole): (Vec<_>, Vec<_>) = names(&line.cells[0]).partition(|name| name.starts_with('.'));
        let longer = whole.iter().flat_map(|path| ends.iter().map(move |end| format!("{path}{end}")));
        // Those below a path that is not there are said in words.
        let words = line.cells[2..].join("");
        let in_words = names(&words).filter(|name| name.starts_with("filter_state.wasm."));
        let names_of_line: BTreeSet<_> = longer.chain(whole.iter().cloned()).chain(in_words).collect();
        for (property, row) in PROPERTIES.iter().zip(paths::ROWS) {
            if !names_of_line.contains(property.name) {
                continue;
            }
            match line.cells[1].as_str() {
                "no" => assert!(property.there == NOWHERE, "{}: the page says no", property.name),
                _ => assert!(has_a_value(property, row), "{}: no test reads a value", property.name),
            }
        }
        listed.extend(names_of_line);
    }
    let tested = PROPERTIES.iter().map(|property| property.name.to_owned()).collect();
    same("paths", &listed, &tested);
}

/// In the table's exchange, or in another one.
fn has_a_value(property: &Property, row: &Row) -> bool {
    let Arg::T(path) = row.arguments[0] else { return false };
    property.there != NOWHERE || PROPERTIES_ELSEWHERE.iter().any(|(read, _)| read.contains(&path))
}

/// Those of the page, and in the place of `meshgate.*` those of the page about extensions.
#[test]
fn foreign() {
    let mut names = listed(|line| line.section == "Foreign functions");
    assert!(names.remove("meshgate.*"), "{names:?}");
    let ours = extensions();
    assert!(ours.len() > 12 && ours.iter().all(|name| name.starts_with("meshgate.")), "{ours:?}");
    names.extend(ours);
    let tested = foreign_functions::ROWS.iter().filter_map(|row| match row.arguments[0] {
        Arg::T(name) if !["", "no_such_function"].contains(&name) => Some(name.to_owned()),
        _ => None,
    });
    same("foreign functions", &names, &tested.collect());
}

/// What the first table of `docs/extensions.md` lists.
fn extensions() -> BTreeSet<String> {
    let page = std::fs::read_to_string(repository().join("docs/extensions.md")).expect("the page");
    let lines = page.lines().skip_while(|line| !line.starts_with("| function |"));
    let lines = lines.skip(2).take_while(|line| line.starts_with('|'));
    lines.flat_map(|line| names(line.split('|').nth(1).unwrap_or_default()).collect::<Vec<_>>()).collect()
}

/// Every one of our functions takes an argument, in the table or elsewhere, and refuses one.
#[test]
fn our_functions_take_and_refuse() {
    const TAKES_ELSEWHERE: &[(&str, Test)] =
        &[("meshgate.cancel", foreign_functions::a_call_that_is_given_up_is_told)];
    for name in extensions() {
        let rows = foreign_functions::ROWS
            .iter()
            .filter(|row| matches!(row.arguments[0], Arg::T(called) if called == name));
        let answers: BTreeSet<_> = rows.flat_map(|row| row.expected).map(|(_, status)| *status).collect();
        let elsewhere = TAKES_ELSEWHERE.iter().any(|(function, _)| *function == name);
        assert!(answers.contains(&OK) || elsewhere, "{name}: {answers:?}");
        assert!(answers.contains(&BAD_ARGUMENT), "{name}: {answers:?}");
    }
}

#[test]
fn versions_and_switches() {
    let mut left: Vec<_> = VERSIONS.iter().map(|(begin, _)| *begin).collect();
    for line in lines().iter().filter(|line| line.section == "Versions") {
        let place = left.iter().position(|begin| line.cells[0].starts_with(begin));
        left.remove(place.unwrap_or_else(|| panic!("no test of `{}`", line.cells[0])));
    }
    assert!(left.is_empty(), "without a line: {left:?}");
    let page = page();
    let (_, block) = page.split_once("```yaml\n").expect("the switches");
    let (block, _) = block.split_once("```").expect("their end");
    let keys =
        block.lines().skip(2).filter_map(|line| line.trim().split_once(':')).map(|(key, _)| key.to_owned());
    let keys = keys.filter(|key| !["module", "compatibility"].contains(&key.as_str())).collect();
    same("switches", &keys, &SWITCHES.iter().map(|(key, _)| (*key).to_owned()).collect());
}
