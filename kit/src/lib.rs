//! What builds filters: it finds a compiler for wasm32, compiles a crate and puts its manifest into the module.
//!
//! Who uses it: `meshgate filter` for anybody's crate, anywhere, and `cargo xtask` for those of this repository. It knows
//! nothing of the proxy, so that the repository's verbs need not wait for it to compile.

pub mod build;
pub mod commands;
mod names;
pub mod package;
pub mod packages;
pub mod section;
pub mod template;
pub mod toolchain;

use std::io::Write;

/// Prints one line about what is going on. Standard output is kept for what a command was asked to print.
pub fn say(line: &str) {
    // A closed terminal is no reason to stop building.
    let _ = writeln!(std::io::stderr(), "{line}");
}
