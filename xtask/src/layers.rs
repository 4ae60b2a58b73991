//! The layer test: files of the proxy import from their own folder and from the layers below, never upward. Used by `lint`.
//!
//! Parts of one layer may use each other in one direction; the parts named in `STRANGERS` never do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use meshgate_kit::say;

use crate::workspace;

/// The proxy's folders and files by layer; a request runs from high to low. What is not listed is refused, so that a new
/// part gets its place on purpose.
const LAYERS: [(&str, u8); 20] = [
    ("main", 6),
    ("cli", 6),
    ("server", 5),
    ("worker", 4),
    ("downstream", 4),
    ("reload", 4),
    ("admin", 4),
    ("exchange", 3),
    ("session", 3),
    ("snapshot", 2),
    ("filter", 1),
    ("upstream", 1),
    ("modules", 1),
    ("message", 0),
    ("telemetry", 0),
    ("tls", 0),
    ("drain", 0),
    ("overload", 0),
    ("files", 0),
    ("socket", 0),
];

/// Parts that never import each other: what a filter decides, and how it is carried out, meet in the snapshot only.
const STRANGERS: [&str; 2] = ["filter", "upstream"];

/// Crates with less to them than the proxy, and what they must not know of.
const FORBIDDEN: [(&str, &[&str]); 2] = [
    ("proxy/config", &["tokio", "hyper", "wasmtime", "meshgate", "meshgate-wasm"]),
    ("proxy/wasm", &["tokio", "hyper", "hyper-util", "socket2", "meshgate", "meshgate-config"]),
];

/// Prints every import that points upward, and fails if there is one.
pub(crate) fn check() -> Result<()> {
    let root = workspace::root();
    let mut found = Vec::new();
    let mut sideways = BTreeMap::new();
    for file in rust_files(&root.join("proxy/src"))? {
        let text = fs::read_to_string(&file)?;
        let relative = file.strip_prefix(root.join("proxy/src"))?;
        for import in wrong_imports(relative, &text, &mut sideways) {
            found.push(format!("proxy/src/{}:{import}", relative.display()));
        }
    }
    found.extend(circles(&sideways));
    for (package, forbidden) in FORBIDDEN {
        let path = root.join(package).join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for name in forbidden_dependencies(&text, forbidden) {
            found.push(format!("{package}/Cargo.toml: must not depend on {name}"));
        }
    }
    for message in &found {
        say(message);
    }
    ensure!(found.is_empty(), "imports point the wrong way: {}", found.len());
    Ok(())
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

/// The folder (or file) directly under `src` that a file belongs to.
fn area(relative: &Path) -> String {
    let first = relative.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let first = first.unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(&first).to_owned()
}

/// Which area imports from which other of its layer, and where.
type Sideways = BTreeMap<(String, String), String>;

/// Lines of a file that import from a higher layer or from a stranger: `line: what`. Imports inside a layer are collected.
fn wrong_imports(relative: &Path, text: &str, sideways: &mut Sideways) -> Vec<String> {
    let own = area(relative);
    // `lib.rs` only lists the parts.
    if own == "lib" {
        return Vec::new();
    }
    let Some(own_layer) = layer(&own) else {
        return vec![format!("1: {own} has no layer: give it one in xtask/src/layers.rs")];
    };
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for other in imported_areas(line).filter(|other| *other != own) {
            // Without a layer: an item of lib.rs itself, or a part whose own file is reported.
            let Some(theirs) = layer(other) else { continue };
            if theirs > own_layer {
                found.push(format!(
                    "{number}: {own} (layer {own_layer}) imports from {other} above it (layer {theirs})"
                ));
            } else if STRANGERS.contains(&own.as_str()) && STRANGERS.contains(&other) {
                found.push(format!("{number}: {own} and {other} do not import each other"));
            } else if theirs == own_layer {
                let place = format!("proxy/src/{}:{number}", relative.display());
                sideways.entry((own.clone(), other.to_owned())).or_insert(place);
            }
        }
    }
    found
}

/// Pairs of areas in one layer that import each other.
fn circles(sideways: &Sideways) -> impl Iterator<Item = String> {
    sideways.iter().filter(|((own, other), _)| own < other).filter_map(|((own, other), place)| {
        let back = sideways.get(&(other.clone(), own.clone()))?;
        Some(format!("{place}: {own} imports from {other}, and {other} from {own} ({back})"))
    })
}

/// The areas that a line names after `crate::`. In comments a name is no import.
fn imported_areas(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices("crate::").filter(|(at, _)| !code[..*at].ends_with('$')).flat_map(|(at, found)| {
        let rest = &code[at + found.len()..];
        // `use crate::{a::B, c};`: each first word of the list. Deeper braces stand after a first word and are cut off.
        let list = rest.strip_prefix('{').unwrap_or("");
        let one = (!rest.starts_with('{')).then_some(rest);
        one.into_iter().chain(top_level(list)).map(first_word)
    })
}

/// The parts of a list between commas that are not inside further braces.
fn top_level(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    list.split(move |character| {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    })
}

fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    let end =
        text.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(text.len());
    &text[..end]
}

fn forbidden_dependencies<'a>(manifest: &'a str, forbidden: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let dependencies = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    dependencies
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| forbidden.contains(name))
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(file: &str, text: &str) -> Vec<String> {
        wrong_imports(Path::new(file), text, &mut Sideways::new())
    }

    #[test]
    fn downward_imports_are_fine() {
        let text = "use crate::message::Body;\nuse crate::exchange::error::E;\nuse crate::{drain, telemetry::{log, x}};\n";
        assert_eq!(messages("exchange/mod.rs", text), [""; 0]);
        assert_eq!(messages("lib.rs", "use crate::server::Server;"), [""; 0]);
    }

    #[test]
    fn upward_and_sideways_imports_are_found() {
        let text = "//! crate::server\nuse crate::server::Server;\nlet x = crate::upstream::Pool;\n";
        assert_eq!(
            messages("filter/chain.rs", text),
            [
                "2: filter (layer 1) imports from server above it (layer 5)",
                "3: filter and upstream do not import each other",
            ]
        );
        let list = "use crate::{message::{Body, a}, worker, x::y};";
        assert_eq!(messages("drain.rs", list), ["1: drain (layer 0) imports from worker above it (layer 4)"]);
    }

    #[test]
    fn parts_of_a_layer_import_each_other_in_one_direction_only() {
        let mut sideways = Sideways::new();
        assert_eq!(wrong_imports(Path::new("admin/mod.rs"), "use crate::reload::A;", &mut sideways), [""; 0]);
        assert_eq!(circles(&sideways).count(), 0);
        wrong_imports(Path::new("reload.rs"), "\nuse crate::admin::B;", &mut sideways);
        let expected = "proxy/src/admin/mod.rs:1: admin imports from reload, and reload from admin (proxy/src/reload.rs:2)";
        assert_eq!(circles(&sideways).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn unknown_areas_need_a_layer() {
        assert_eq!(messages("extra/mod.rs", "").len(), 1);
    }

    #[test]
    fn forbidden_dependencies_are_found() {
        let manifest = "[package]\nname = \"tokio\"\n\n[dependencies]\ntokio.workspace = true\nbytes = \"1\"\n\n[dev-dependencies]\nhyper = \"1\"\n";
        assert_eq!(forbidden_dependencies(manifest, &["tokio", "hyper"]).collect::<Vec<_>>(), ["tokio"]);
    }
}
