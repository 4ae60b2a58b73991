//! Where things are in this repository, and which packages it has. Used by every verb.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use meshgate_kit::package::Package;

/// The repository's root: of the checkout that cargo runs this in, since one that shares its target folder may have built it.
pub(crate) fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    let mut root = package.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    root.pop();
    root
}

/// Where cargo puts native builds: `CARGO_TARGET_DIR` or `target`.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Where finished modules lie. Always under `target/`, because `proxy/build.rs` and the examples look there.
pub(crate) fn artifacts(group: Group) -> PathBuf {
    root().join("target").join(group.artifacts())
}

/// The kinds of packages that are compiled to WebAssembly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    /// The standard filters, embedded in the binary.
    Filters,
    /// Modules that only the tests use.
    Guests,
    /// Filters that show how it is done.
    Examples,
}

impl Group {
    /// All groups, in the order in which they are reported.
    pub(crate) const ALL: [Self; 3] = [Self::Filters, Self::Guests, Self::Examples];

    fn sources(self) -> &'static str {
        match self {
            Self::Filters => "filters",
            Self::Guests => "tests/guests",
            Self::Examples => "examples",
        }
    }

    fn artifacts(self) -> &'static str {
        match self {
            Self::Filters => "filters",
            Self::Guests => "guests",
            Self::Examples => "examples",
        }
    }
}

/// A package that becomes one module.
#[derive(Debug)]
pub(crate) struct ModulePackage {
    /// The module's name: that of its folder.
    pub(crate) name: String,
    /// Where it belongs.
    pub(crate) group: Group,
    /// What is built.
    pub(crate) package: Package,
}

/// Every package that becomes a module, in a stable order.
pub(crate) fn module_packages() -> Result<Vec<ModulePackage>> {
    let mut packages = Vec::new();
    for group in Group::ALL {
        let folder = root().join(group.sources());
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        let mut folders: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        folders.sort();
        for folder in folders.iter().filter(|folder| folder.join("Cargo.toml").is_file()) {
            packages.push(module_package(folder, group)?);
        }
    }
    Ok(packages)
}

/// What cargo would tell of the package, without asking it: our packages are all alike.
fn module_package(folder: &Path, group: Group) -> Result<ModulePackage> {
    let path = folder.join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .with_context(|| format!("{} has no line `name = \"…\"`", path.display()))?;
    let package = Package {
        name: name.to_owned(),
        folder: folder.to_owned(),
        root: root(),
        target: target(),
        library: name.replace('-', "_"),
        has_manifest: text.lines().any(|line| line.starts_with("meshgate-sdk")),
    };
    let name = folder.file_name().and_then(|name| name.to_str()).context("a folder's name is not UTF-8")?;
    Ok(ModulePackage { name: name.to_owned(), group, package })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_standard_filter_is_found() {
        let packages = module_packages().unwrap();
        for name in ["headers", "routing", "telemetry"] {
            let found = packages.iter().find(|package| package.name == name).unwrap();
            assert_eq!(found.group, Group::Filters);
            assert_eq!(found.package.filter(), name);
            assert!(found.package.has_manifest);
        }
    }
}
