//! Where modules come from: the filters embedded in the binary, and files.
//!
//! One load reads each file once ([`ModuleFiles`]): what is checked against a pin, asked for its manifest and compiled are the same bytes, even while
//! somebody replaces the file. Compiled modules outlive the load ([`CompiledModules`]), so that a reload compiles only what is new.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use meshgate_config::{ModuleSource, Modules};
use meshgate_wasm::{Engine, Module, ModuleBounds, ModuleError, ModuleHash, manifest_section};
use sha2::{Digest, Sha256};

mod embedded {
    //! The table that the build script writes.
    include!(concat!(env!("OUT_DIR"), "/embedded_filters.rs"));
}

/// The names of the filters embedded in the binary, sorted.
pub fn standard() -> impl Iterator<Item = &'static str> {
    embedded::FILTERS.iter().map(|(name, _)| *name)
}

/// The modules of one load. Made for it, handed to [`meshgate_config::load`], then asked for the bytes to compile.
#[derive(Debug, Default)]
pub struct ModuleFiles {
    read: HashMap<ModuleSource, Result<ModuleFile, String>>,
}

/// A module's bytes, as they were when the load read them.
#[derive(Debug, Clone)]
pub struct ModuleFile {
    /// The WebAssembly.
    pub bytes: Cow<'static, [u8]>,
    /// Their SHA-256.
    pub hash: ModuleHash,
    manifest: Option<Vec<u8>>,
}

impl ModuleFiles {
    /// Nothing read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The module, read and checked now or earlier in this load.
    ///
    /// # Errors
    /// Why the module cannot be used, in words for whoever wrote the configuration.
    pub fn module(&mut self, source: &ModuleSource) -> Result<&ModuleFile, String> {
        let module = self.read.entry(source.clone()).or_insert_with(|| ModuleFile::read(source));
        module.as_ref().map_err(Clone::clone)
    }
}

impl Modules for ModuleFiles {
    fn manifest(&mut self, source: &ModuleSource, sha256: Option<&str>) -> Result<Option<Vec<u8>>, String> {
        let module = self.module(source)?;
        let actual = module.hash.to_string();
        match sha256 {
            Some(expected) if !expected.eq_ignore_ascii_case(&actual) => {
                Err(format!("{source} is not the pinned module: its SHA-256 is {actual}, not {expected}"))
            }
            _ => Ok(module.manifest.clone()),
        }
    }

    fn standard(&self) -> Vec<String> {
        standard().map(str::to_owned).collect()
    }
}

impl ModuleFile {
    fn read(source: &ModuleSource) -> Result<Self, String> {
        let bytes = match source {
            ModuleSource::Standard(name) => {
                let found = embedded::FILTERS.iter().find(|(known, _)| known == name);
                Cow::Borrowed(found.ok_or_else(|| format!("there is no standard filter `{name}`"))?.1)
            }
            ModuleSource::File(path) => {
                Cow::Owned(read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?)
            }
        };
        let hash = ModuleHash(Sha256::digest(&bytes).into());
        let manifest =
            manifest_section(&bytes).map_err(|error| format!("{source} cannot be used: {error}"))?;
        Ok(Self { bytes, hash, manifest })
    }
}

/// What is read of a file before the configuration has said how large a module may be, in bytes.
const LARGEST: u64 = 64 << 20;

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A directory or a pipe under that name is a mistake, and reading a pipe could take for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let limit = LARGEST;
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {} MiB", limit >> 20)));
    }
    Ok(bytes)
}

/// Compiled modules by hash, for the life of the process.
#[derive(Debug, Default)]
pub struct CompiledModules {
    modules: HashMap<ModuleHash, Module>,
}

impl CompiledModules {
    /// The module's code, compiled now unless it has been before. Takes long: not for a worker's thread.
    ///
    /// # Errors
    /// Why the module cannot be used.
    pub fn compile(
        &mut self,
        engine: &Engine,
        name: &str,
        file: &ModuleFile,
        bounds: &ModuleBounds,
    ) -> Result<Module, ModuleError> {
        if let Some(module) = self.modules.get(&file.hash) {
            return Ok(module.clone());
        }
        let module = engine.compile_within(name, &file.bytes, bounds)?;
        if !module.stubs().is_empty() {
            let imports = module.stubs().join(", ");
            tracing::warn!(
                filter = name,
                imports,
                "the module imports functions that this host does not offer"
            );
        }
        self.modules.insert(file.hash, module.clone());
        Ok(module)
    }

    /// Forgets every module but these: after a swap, what the new snapshot uses.
    pub fn keep_only(&mut self, used: &HashSet<ModuleHash>) {
        self.modules.retain(|hash, _| used.contains(hash));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_missing_module_a_folder_and_a_text_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text.wasm");
        fs::write(&text, "not wasm").unwrap();
        let mut files = ModuleFiles::new();
        let mut error = |path: &Path| files.manifest(&ModuleSource::File(path.to_owned()), None).unwrap_err();
        assert!(error(&folder.path().join("missing.wasm")).contains("No such file"));
        assert!(error(folder.path()).contains("it is not a file"));
        assert!(error(&text).contains("cannot be used"));
    }

    #[test]
    fn a_file_is_read_once_per_load() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("module.wasm");
        let source = ModuleSource::File(path.clone());
        fs::write(&path, "before").unwrap();
        let mut files = ModuleFiles::new();
        let before = files.manifest(&source, None).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert_eq!(files.manifest(&source, None).unwrap_err(), before, "looked at the file again");
        assert_ne!(ModuleFiles::new().manifest(&source, None).unwrap_err(), before);
    }

    #[test]
    fn a_module_that_is_too_large_is_not_read_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.wasm");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = ModuleFiles::new().manifest(&ModuleSource::File(path), None).unwrap_err();
        assert!(error.contains("larger than"), "{error}");
    }

    #[test]
    fn an_unknown_standard_filter_is_an_error() {
        let error =
            ModuleFiles::new().manifest(&ModuleSource::Standard("nothing".to_owned()), None).unwrap_err();
        assert!(error.contains("no standard filter `nothing`"), "{error}");
    }

    #[test]
    fn the_standard_filters_are_sorted_and_can_be_pinned() {
        let names: Vec<_> = standard().collect();
        assert!(!names.is_empty() && names.is_sorted(), "{names:?}");
        for name in names {
            let source = ModuleSource::Standard(name.to_owned());
            let mut files = ModuleFiles::new();
            let hash = files.module(&source).unwrap().hash.to_string();
            files.manifest(&source, Some(&hash)).unwrap().expect("a standard filter has a manifest");
            let wrong = "0".repeat(64);
            let error = files.manifest(&source, Some(&wrong)).unwrap_err();
            assert!(error.contains(&hash) && error.contains(&wrong), "{error}");
        }
    }
}
