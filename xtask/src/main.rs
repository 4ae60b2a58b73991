//! The repository verbs.
fn main() {}
