//! What the loader asks about modules. The proxy answers from the files and from the filters built into it; tests
//! answer from a table.

use std::fmt;
use std::path::PathBuf;

/// Where a module's bytes come from.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ModuleSource {
    /// A standard filter, embedded in the binary, by its name.
    Standard(String),
    /// A file; relative paths in the YAML are already resolved against the folder the YAML lies in.
    File(PathBuf),
}

impl fmt::Display for ModuleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(name) => write!(f, "standard filter `{name}`"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The modules as the loader sees them.
pub trait Modules {
    /// The JSON in the module's `meshgate.manifest` section, or `None` if it carries none. The loader asks once per
    /// source and pin.
    ///
    /// # Errors
    /// Why the module cannot be used, in words for the person who wrote the file: it does not exist, its SHA-256 is
    /// not `sha256` (64 lower-case hex digits), it is no WebAssembly module, it exports no ABI version.
    fn manifest(&mut self, source: &ModuleSource, sha256: Option<&str>) -> Result<Option<Vec<u8>>, String>;

    /// The names of the standard filters.
    fn standard(&self) -> Vec<String>;
}
