//! The list of capabilities in the documents names tests that there are.

use meshgate_tests::repository;

#[test]
fn every_capability_is_tested_as_the_documents_say() {
    let page = std::fs::read_to_string(repository().join("docs/testing.md")).unwrap();
    let (_, list) = page.split_once("## Each capability").unwrap();
    let (list, _) = list.split_once("\n## ").unwrap();
    let mut sources = String::new();
    let mut folders = vec![repository().join("tests/tests/e2e")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                Some(extension) if extension == "rs" => {
                    sources.push_str(&std::fs::read_to_string(path).unwrap())
                }
                _ if path.is_dir() => folders.push(path),
                _ => {}
            }
        }
    }
    let mut rows = 0;
    for line in list.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let Ok(row) = cells[1].parse::<u32>() else { continue };
        let tests: Vec<_> = cells[3].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "row {row}");
        for test in tests {
            // Weights are weights, whatever the row calls them.
            let number = if row == 8 { 2 } else { row };
            assert!(test.starts_with(&format!("row_{number}_")), "{test} in row {row}");
            assert_eq!(sources.matches(&format!("fn {test}(")).count(), 1, "{test}");
        }
        rows += 1;
    }
    assert_eq!(rows, 22);
}
