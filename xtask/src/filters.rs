//! Builds every filter, guest and example to WebAssembly. Used by `setup`, `filters`, `demo` and `test`.

use std::fs;

use anyhow::{Context, Result};
use meshgate_kit::build::Build;
use meshgate_kit::package::Package;

use crate::workspace::{Group, ModulePackage};
use crate::{say, workspace};

/// Builds what changed, and prints each module's name and size.
pub(crate) fn build() -> Result<()> {
    let modules = workspace::module_packages()?;
    let packages: Vec<&Package> = modules.iter().map(|module| &module.package).collect();
    Build { packages: &packages, locked: true }.compile()?;
    for module in &modules {
        let path = workspace::artifacts(module.group).join(format!("{}.wasm", module.name));
        let built = Build::install(&module.package, &path)?;
        let shown = path.strip_prefix(workspace::root()).unwrap_or(&path);
        say(&format!("{:<40} {:>5} KiB", shown.display(), built.size.div_ceil(1024)));
    }
    forget_others(&modules)
}

/// Removes the modules of standard filters that are no more: they would be embedded.
fn forget_others(modules: &[ModulePackage]) -> Result<()> {
    let folder = workspace::artifacts(Group::Filters);
    let filters = || modules.iter().filter(|module| module.group == Group::Filters);
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let is_module = path.extension().is_some_and(|extension| extension == "wasm");
        if is_module && !filters().any(|filter| path.file_stem().is_some_and(|stem| stem == &*filter.name)) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            say(&format!("{} is removed: its filter is gone", path.display()));
        }
    }
    Ok(())
}
