//! The manifest: what a module says about itself in its custom section `meshgate.manifest`.
//!
//! It is made natively, by a test that `#[filter]` adds to the filter's crate, because the schema comes from a Rust type.
//! `cargo xtask filters` runs that test and puts the manifest into the module.

use std::path::Path;
use std::{fs, io};

use schemars::SchemaGenerator;
use serde_json::{Value, json};

use crate::filter::Filter;
use crate::runtime::{Both, Http, Kind, Tcp};
use crate::tcp::TcpFilter;

/// Callbacks that every module on this SDK has, whatever its filter does.
const ALWAYS: [&str; 4] = ["context_create", "vm_start", "configure", "delete"];
/// Callbacks that are no business of hosts: one that is a part of the tick, and that for the plugin's end, for which a host asks in
/// any case (and asks streams, too, if the manifest has it).
const OWN: [&str; 2] = ["connection_tick", "done"];
/// A body's callback that waits has to be told that trailers have ended the body.
const ENDS: [(&str, &str); 2] =
    [("request_body", "request_trailers"), ("response_body", "response_trailers")];

/// The manifest of a filter, which is the one of this package.
fn manifest<K: Kind>(package: &str, version: &str) -> Value {
    let name = package.strip_prefix("meshgate-filter-").unwrap_or(package);
    let waits = K::AWAITS.concat();
    let ends = ENDS.iter().filter(|(body, _)| waits.contains(body)).map(|(_, end)| *end);
    let mut callbacks = Vec::new();
    for callback in ALWAYS.into_iter().chain(K::CALLBACKS.concat()).chain(ends) {
        if !OWN.contains(&callback) && !callbacks.contains(&callback) {
            callbacks.push(callback);
        }
    }
    json!({
        "name": name,
        "version": version,
        "sdk": env!("CARGO_PKG_VERSION"),
        "callbacks": callbacks,
        "schema": SchemaGenerator::default().into_root_schema_for::<K::Config>(),
    })
}

/// Writes the manifest to `<package>.json` in the folder that `MESHGATE_MANIFEST` names, if it is set.
///
/// # Errors
/// The file cannot be written.
pub fn write_http<F: Filter>(package: &str, version: &str) -> io::Result<()> {
    write(package, &manifest::<Http<F>>(package, version))
}

/// As [`write_http`], of a filter for TCP.
///
/// # Errors
/// The file cannot be written.
pub fn write_tcp<F: TcpFilter>(package: &str, version: &str) -> io::Result<()> {
    write(package, &manifest::<Tcp<F>>(package, version))
}

/// As [`write_http`], of a filter for both.
///
/// # Errors
/// The file cannot be written.
pub fn write_both<F: Filter + TcpFilter>(package: &str, version: &str) -> io::Result<()> {
    write(package, &manifest::<Both<F>>(package, version))
}

fn write(package: &str, manifest: &Value) -> io::Result<()> {
    match std::env::var_os("MESHGATE_MANIFEST") {
        Some(folder) => fs::write(Path::new(&folder).join(format!("{package}.json")), manifest.to_string()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Body, ConfigError, Exchange, Filter, Outcome};

    struct Sample;

    // What the attribute writes: it refers to the SDK from outside, so that it cannot be used here.
    impl Filter for Sample {
        type Config = crate::config::Empty;
        type State = ();
        const CALLBACKS: &'static [&'static str] = &["request_headers", "request_body"];
        const AWAITS: &'static [&'static str] = &["request_body"];

        fn configure(_: Self::Config) -> Result<Self, ConfigError> {
            Ok(Self)
        }

        async fn on_request(&self, _: &Exchange<Self>) -> Outcome {
            Ok(())
        }

        async fn on_request_body(&self, _: &Exchange<Self>, body: &mut Body) -> Outcome {
            body.whole(1).await?;
            Ok(())
        }
    }

    #[test]
    fn a_manifest_says_what_the_filter_is() {
        let manifest = super::manifest::<crate::runtime::Http<Sample>>("meshgate-filter-sample", "1.2.3");
        assert_eq!(manifest["name"], "sample");
        assert_eq!(manifest["version"], "1.2.3");
        assert_eq!(manifest["schema"]["additionalProperties"], false);
        let callbacks = manifest["callbacks"].as_array().unwrap();
        assert!(callbacks.contains(&"request_headers".into()) && callbacks.contains(&"delete".into()));
        assert!(callbacks.contains(&"request_trailers".into()));
        assert!(!callbacks.contains(&"response_headers".into()));
    }
}
