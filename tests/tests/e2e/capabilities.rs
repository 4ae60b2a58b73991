//! The list of capabilities in the documents names tests that there are.

use std::path::PathBuf;

use meshgate_tests::repository;

#[test]
fn every_capability_is_tested_as_the_documents_say() {
    let page = std::fs::read_to_string(repository().join("docs/testing.md")).unwrap();
    let (_, list) = page.split_once("## Each capability").unwrap();
    let (list, _) = list.split_once("\n## ").unwrap();
    let sources = sources();
    let mut rows = 0;
    for line in list.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let Ok(row) = cells[1].parse::<u32>() else { continue };
        let tests: Vec<_> = cells[3].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "row {row}");
        for test in tests {
            // Weights are weights, whatever the row calls them.
            let number = if row == 8 { 2 } else { row };
            let is_of_row = test.contains("::") || test.starts_with(&format!("row_{number}_"));
            assert!(is_of_row, "{test} in row {row}");
            assert_eq!(functions(&sources, test), 1, "{test}");
        }
        rows += 1;
    }
    assert_eq!(rows, 32);
}

/// How many functions have this name: in the file of the module before it, or anywhere.
fn functions(sources: &[(PathBuf, String)], name: &str) -> usize {
    let (file, name) = match name.split_once("::") {
        Some((module, name)) => (format!("{module}.rs"), name),
        None => (String::new(), name),
    };
    let function = format!("fn {name}(");
    // Every path ends with nothing.
    let in_file = sources.iter().filter(|(path, _)| path.ends_with(&file));
    in_file.map(|(_, source)| source.matches(&function).count()).sum()
}

/// The path and the text of every file of these tests.
fn sources() -> Vec<(PathBuf, String)> {
    let (mut folders, mut sources) = (vec![repository().join("tests/tests/e2e")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                sources.push((path, text));
            }
        }
    }
    sources
}
