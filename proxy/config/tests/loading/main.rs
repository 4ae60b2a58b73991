//! Tests of the loader as the proxy uses it.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

mod fake; // modules that exist in a table only
mod files; // loading from disk: what is read, and the list of files to watch
mod golden; // files and what loading them prints
mod properties; // whatever the text is, the loader returns
mod schema; // the schema that editors use
