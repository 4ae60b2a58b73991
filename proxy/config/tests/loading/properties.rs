//! Whatever the text is, the loader returns: a configuration, or errors that lie in the text.

use std::path::Path;

use meshgate_config::load_text;
use proptest::prelude::*;

use crate::fake::Table;

const VALID: [&str; 3] = [
    include_str!("../golden/valid/everything.yaml"),
    include_str!("../golden/valid/sub_chains.yaml"),
    include_str!("../golden/valid/marks.yaml"),
];

fn load(text: &str) {
    let outcome = load_text("x.yaml", text, Path::new("tests/golden"), &mut Table::default()).outcome;
    let Err(errors) = outcome else { return };
    assert!(!errors.is_empty(), "refused without a reason");
    assert!(!errors.to_string().is_empty());
    for error in &errors {
        let lines = text.split('\n').count() + text.matches('\r').count();
        assert!(error.at.line <= lines + 1, "{error}");
        assert!(!error.message.is_empty());
    }
}

/// Pieces that YAML and the schema care about.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("\n".to_owned()),
        Just("\n  ".to_owned()),
        Just("\n- ".to_owned()),
        Just(": ".to_owned()),
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            "&a ",
            "*a",
            "!t ",
            "|",
            ">",
            "'",
            "\"",
            "#",
            "%",
            "---",
            "...",
            "<<: ",
            "? ",
            "\t",
            "\r",
            "~",
            "true",
            "0x",
            "1e400",
            "007",
            "10s",
            "1MiB",
            "listeners",
            "chains",
            "clusters",
            "filters",
            "routing",
            "routes",
            "to",
            "web",
            "name",
            "address",
            "127.0.0.1:80",
            "\u{feff}",
            "\u{85}",
            "\u{2028}",
            "\0",
            "ä",
            "\u{1F600}",
        ])
        .prop_map(str::to_owned),
        "[a-z]{1,8}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn arbitrary_text(text in any::<String>()) {
        load(&text);
    }

    #[test]
    fn arbitrary_pieces(pieces in prop::collection::vec(piece(), 0..60)) {
        load(&pieces.concat());
    }

    #[test]
    fn valid_files_with_pieces_put_in_or_cut_out(
        file in prop::sample::select(VALID.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, piece()), 1..6),
    ) {
        let mut chars: Vec<char> = file.chars().collect();
        for (place, cut, piece) in changes {
            let start = place.index(chars.len() + 1);
            let end = (start + cut).min(chars.len());
            chars.splice(start..end, piece.chars());
        }
        load(&chars.into_iter().collect::<String>());
    }

    #[test]
    fn valid_files_with_lines_moved(
        file in prop::sample::select(VALID.to_vec()),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        indent in 0..6_usize,
    ) {
        let mut lines: Vec<String> = file.lines().map(str::to_owned).collect();
        let line = lines.remove(from.index(lines.len()));
        lines.insert(to.index(lines.len() + 1), format!("{}{}", " ".repeat(indent), line.trim_start()));
        load(&lines.join("\n"));
    }
}

/// Text that is small for what it asks of a reader of YAML.
#[test]
fn bombs_are_refused_or_read() {
    let deep = 100_000;
    let aliases: String = (0..30).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n.max(1) - 1)).collect();
    let bombs = [
        "[".repeat(deep),
        "{a: ".repeat(deep),
        "- ".repeat(deep),
        "? ".repeat(deep),
        "a:\n".chars().chain(std::iter::repeat_n('\n', deep)).collect(),
        format!("chains: {{web: [{}]}}", "routing, ".repeat(deep)),
        format!("listeners: [{}]", "{},".repeat(deep)),
        format!("a: {}", "x".repeat(1 << 20)),
        format!("{}: 1", "x".repeat(1 << 20)),
        (0..deep).map(|n| format!("k{n}: 1\n")).collect(),
        (0..deep).map(|_| "k: 1\n").collect(),
        format!("a: \"{}\"", "\\n".repeat(deep)),
        "\u{feff}".repeat(1000),
        aliases,
    ];
    for bomb in bombs {
        load(&bomb);
    }
}
