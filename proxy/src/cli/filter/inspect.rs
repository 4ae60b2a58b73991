//! `meshgate filter inspect`: what is in a module, and what Meshgate offers of what it asks for.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use meshgate_wasm::{AbiVersion, Engine, EngineOptions, Module, manifest_section};
use serde_json::Value;

use crate::cli::{print, refuse};

pub(super) fn inspect(file: &Path, only_manifest: bool) -> Result<ExitCode> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    if only_manifest {
        return Ok(match manifest_section(&bytes) {
            Ok(Some(manifest)) => print(&pretty(&manifest)?),
            Ok(None) => {
                refuse(&format!("{} has no manifest: it was not built on Meshgate's SDK", file.display()))
            }
            Err(error) => refuse(&format!("{}: {error}", file.display())),
        });
    }
    let engine =
        Engine::new(EngineOptions::default()).context("WebAssembly cannot be run on this machine")?;
    Ok(match engine.compile(&file.display().to_string(), &bytes) {
        Ok(module) => print(&described(&module, bytes.len())?),
        Err(error) => refuse(&format!("{}: {error}", file.display())),
    })
}

fn pretty(manifest: &[u8]) -> Result<String> {
    let manifest: Value = serde_json::from_slice(manifest).context("the manifest is not JSON")?;
    Ok(format!("{manifest:#}\n"))
}

fn described(module: &Module, size: usize) -> Result<String> {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<10} {value}");
    };
    line("module", module.name());
    line("size", &format!("{} KiB ({size} bytes)", size.div_ceil(1024)));
    line("sha256", &module.hash().to_string());
    line("ABI", abi(module.abi()));
    match module.manifest() {
        Some(manifest) => {
            let manifest: Value = serde_json::from_slice(manifest).context("the manifest is not JSON")?;
            let word = |key: &str| manifest[key].as_str().unwrap_or("?").to_owned();
            line("manifest", &format!("{} {}, built on SDK {}", word("name"), word("version"), word("sdk")));
            for (at, key) in keys(&manifest["schema"]).iter().enumerate() {
                line(if at == 0 { "keys" } else { "" }, key);
            }
        }
        None => line("manifest", "none: its configuration is not checked before it is started"),
    }
    let stubs = module.stubs();
    list(
        &mut line,
        "callbacks",
        module.exports().filter(|name| name.starts_with("proxy_on_")).map(str::to_owned),
    );
    list(&mut line, "hostcalls", module.imports().filter(|name| !stubs.contains(name)));
    list(
        &mut line,
        "unknown",
        stubs.iter().map(|name| format!("{name} (answers UNIMPLEMENTED when it is called)")),
    );
    Ok(text)
}

fn list(line: &mut impl FnMut(&str, &str), title: &str, names: impl Iterator<Item = String>) {
    let mut names: Vec<String> = names.collect();
    names.sort();
    for (at, name) in names.iter().enumerate() {
        line(if at == 0 { title } else { "" }, name);
    }
}

fn abi(version: AbiVersion) -> &'static str {
    match version {
        AbiVersion::V0_1_0 => "Proxy-Wasm 0.1.0",
        AbiVersion::V0_2_0 => "Proxy-Wasm 0.2.0",
        AbiVersion::V0_2_1 => "Proxy-Wasm 0.2.1",
    }
}

/// The keys at the top of the configuration: name, whether it is required, and the first line of its manual.
fn keys(schema: &Value) -> Vec<String> {
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let properties = schema["properties"].as_object().into_iter().flatten();
    let described = properties.map(|(key, schema)| {
        let needed = if required.iter().any(|name| name == key) { " (required)" } else { "" };
        let manual = schema["description"].as_str().and_then(|text| text.lines().next()).unwrap_or_default();
        format!("{key}{needed}  {manual}").trim_end().to_owned()
    });
    described.collect()
}
