//! The parts of the harness that a mistake could hide in.

use meshgate_tests::{Meshgate, Shown, shown_commands, with_custom_section, within_binomial_bounds};

#[test]
fn custom_section_has_a_leb128_length() {
    let module = with_custom_section(b"\0asm\x01\0\0\0", "n", &[7; 200]);
    // 1 byte for the name's length, 1 for the name, 200 of content: 202 = 0b1_1001010
    assert_eq!(&module[8..13], &[0, 0b1100_1010, 0b1, 1, b'n']);
    assert_eq!(module.len(), 8 + 1 + 2 + 202);
}

#[test]
fn shown_commands_keep_their_output() {
    let page = "text\n```console\n$ one -x\nfirst\n\nsecond\n$ two\n```\n$ not in a block\n```yaml\n$ neither\n```\n";
    let one =
        Shown { command: "one -x".to_owned(), output: ["first", "", "second"].map(str::to_owned).to_vec() };
    let two = Shown { command: "two".to_owned(), output: Vec::new() };
    assert_eq!(shown_commands(page), [one, two]);
}

#[test]
fn bounds_admit_chance_and_refuse_bias() {
    assert!(within_binomial_bounds(900, 1000, 0.9));
    assert!(within_binomial_bounds(850, 1000, 0.9));
    assert!(!within_binomial_bounds(840, 1000, 0.9));
    assert!(!within_binomial_bounds(500, 1000, 0.9));
    assert!(!within_binomial_bounds(1000, 1000, 0.9));
}

#[test]
fn yaml_is_written_around_a_chain() {
    let setup = Meshgate::chain(
        "
        - telemetry: {}
        - routing:
            routes: []
        ",
    );
    let expected = "  web:\n    - telemetry: {}\n    - routing:\n        routes: []\n";
    assert!(setup.yaml().contains(expected), "{}", setup.yaml());
}
