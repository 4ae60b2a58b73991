//! Builds every filter, guest and example to WebAssembly. Used by `setup`, `filters`, `demo` and `test`.

use anyhow::Result;
use meshgate_kit::build::Build;
use meshgate_kit::package::Package;

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
    Ok(())
}
