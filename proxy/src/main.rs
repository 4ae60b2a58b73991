//! The `meshgate` binary.
fn main() {}
