//! A filter's crate, as cargo knows it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::commands;

/// A crate that becomes a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The root of its workspace: its folder, if it is alone.
    pub root: PathBuf,
    /// Where cargo puts native builds.
    pub target: PathBuf,
    /// What cargo calls the module, without `.wasm`.
    pub library: String,
    /// Whether it is built on the SDK, and so carries a manifest.
    pub has_manifest: bool,
}

impl Package {
    /// The package in this folder.
    ///
    /// # Errors
    /// There is none, or it cannot become a module: it says what is missing.
    pub fn find(folder: &Path) -> Result<Package> {
        let manifest = folder.join("Cargo.toml");
        if !manifest.is_file() {
            bail!(
                "{} is not there: `meshgate filter` works in the folder of a filter's crate; `meshgate filter new NAME` makes one",
                manifest.display()
            );
        }
        let manifest =
            manifest.canonicalize().with_context(|| format!("cannot find {}", manifest.display()))?;
        let mut command = Command::new(cargo());
        command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(&manifest);
        let text = commands::output(&mut command)?;
        let metadata: Value =
            serde_json::from_str(&text).context("cargo metadata printed something else than JSON")?;
        Self::read(&metadata, &manifest)
    }

    fn read(metadata: &Value, manifest: &Path) -> Result<Package> {
        let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let path_of = |package: &Value| package["manifest_path"].as_str().map(PathBuf::from);
        let package = packages
            .iter()
            .find(|package| path_of(package).as_deref() == Some(manifest))
            .with_context(|| format!("{} is of a workspace, not of a filter", manifest.display()))?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let targets = package["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_module = |target: &&Value| {
            target["crate_types"].as_array().is_some_and(|types| types.iter().any(|kind| kind == "cdylib"))
        };
        let Some(library) = targets.iter().find(is_module) else {
            bail!(
                "{} makes no module; add these lines to it:\n[lib]\ncrate-type = [\"cdylib\"]",
                manifest.display()
            );
        };
        let dependencies = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
        let on_sdk =
            |dependency: &Value| dependency["name"] == "meshgate-sdk" && dependency["kind"].is_null();
        let unexpected = "cargo metadata leaves out what it should tell";
        Ok(Package {
            name: text(&package["name"]).context(unexpected)?,
            folder: manifest.parent().context(unexpected)?.to_owned(),
            root: text(&metadata["workspace_root"]).context(unexpected)?.into(),
            target: text(&metadata["target_directory"]).context(unexpected)?.into(),
            library: text(&library["name"]).context(unexpected)?.replace('-', "_"),
            has_manifest: dependencies.iter().any(on_sdk),
        })
    }

    /// The filter's name, as its manifest says it.
    #[must_use]
    pub fn filter(&self) -> &str {
        self.name.strip_prefix("meshgate-filter-").unwrap_or(&self.name)
    }

    /// Where its module is put, unless somebody wants it elsewhere. Configurations refer to it, so it does not depend on
    /// where native builds go.
    #[must_use]
    pub fn module(&self) -> PathBuf {
        self.root.join("target/filters").join(format!("{}.wasm", self.filter()))
    }
}

/// The cargo that started this program, or the usual one.
#[must_use]
pub fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(crate_type: &str, dependency: &str) -> Value {
        json!({
            "workspace_root": "/home/ada/greeter",
            "target_directory": "/home/ada/greeter/target",
            "packages": [{
                "name": "meshgate-filter-greeter",
                "manifest_path": "/home/ada/greeter/Cargo.toml",
                "dependencies": [{"name": dependency, "kind": null}],
                "targets": [{"name": "meshgate-filter-greeter", "crate_types": [crate_type]}],
            }],
        })
    }

    #[test]
    fn a_crate_is_read() {
        let manifest = Path::new("/home/ada/greeter/Cargo.toml");
        let package = Package::read(&metadata("cdylib", "meshgate-sdk"), manifest).unwrap();
        assert_eq!(package.filter(), "greeter");
        assert_eq!(package.library, "meshgate_filter_greeter");
        assert_eq!(package.module(), Path::new("/home/ada/greeter/target/filters/greeter.wasm"));
        assert!(package.has_manifest);
        assert!(!Package::read(&metadata("cdylib", "proxy-wasm"), manifest).unwrap().has_manifest);
    }

    #[test]
    fn what_is_missing_is_said() {
        let manifest = Path::new("/home/ada/greeter/Cargo.toml");
        let error = Package::read(&metadata("lib", "meshgate-sdk"), manifest).unwrap_err().to_string();
        assert!(error.contains("crate-type = [\"cdylib\"]"), "{error}");
        let error = Package::read(&metadata("cdylib", "x"), Path::new("/home/ada/Cargo.toml"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/home/ada/Cargo.toml"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let error = Package::find(folder.path()).unwrap_err().to_string();
        assert!(error.contains("filter new"), "{error}");
    }
}
