//! A compiled module, and what can be read from a module's bytes without compiling it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use wasmparser::{ExternalKind, Parser, Payload};
use wasmtime::{ExternType, InstancePre, Val, ValType};

use crate::action::Callbacks;
use crate::bulk::Layout;
use crate::error::ModuleError;
use crate::exports::{self, Places};
use crate::hostcalls::Functions;
use crate::memory::{Allowed, Stop, run};
use crate::remains::Data;
use crate::status::Status;

/// The custom section that holds a module's manifest.
const MANIFEST_SECTION: &str = "meshgate.manifest";
/// What an unknown WASI function answers: ENOSYS.
const ERRNO_NOSYS: u32 = 52;

/// The SHA-256 of a module's bytes; shown in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleHash(pub [u8; 32]);

impl ModuleHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> ModuleHash {
        ModuleHash(Sha256::digest(bytes).into())
    }
}

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

impl AbiVersion {
    fn of_export(name: &str) -> Option<AbiVersion> {
        match name {
            "proxy_abi_version_0_1_0" => Some(AbiVersion::V0_1_0),
            "proxy_abi_version_0_2_0" => Some(AbiVersion::V0_2_0),
            "proxy_abi_version_0_2_1" => Some(AbiVersion::V0_2_1),
            _ => None,
        }
    }
}

/// How large a module may be and how long it may take to compile: sizes are checked before, since compiling takes long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleBounds {
    /// The most bytes a module may have. Default 10 MiB.
    pub bytes: u64,
    /// The most functions. Default 20,000.
    pub functions: u32,
    /// The most bytes one function's body may have. Default 1 MiB: some compilers put all initialisation into one.
    pub function_bytes: u64,
    /// The longest it may take to compile. Default 30 s.
    pub compile_time: Duration,
}

impl Default for ModuleBounds {
    fn default() -> ModuleBounds {
        ModuleBounds {
            bytes: 10 << 20,
            functions: 20_000,
            function_bytes: 1 << 20,
            compile_time: Duration::from_secs(30),
        }
    }
}

impl ModuleBounds {
    const NONE: ModuleBounds = ModuleBounds {
        bytes: u64::MAX,
        functions: u32::MAX,
        function_bytes: u64::MAX,
        compile_time: Duration::MAX,
    };
}

/// What a module's bytes tell without compiling them.
pub(crate) struct Outline {
    abi: AbiVersion,
    manifest: Option<Vec<u8>>,
}

impl Outline {
    pub(crate) fn read(bytes: &[u8], bounds: &ModuleBounds) -> Result<Outline, ModuleError> {
        within("bytes in the module", bytes.len() as u64, bounds.bytes)?;
        if !Parser::is_core_wasm(bytes) {
            return Err(ModuleError::NotWasm("no core module's magic number at the start".into()));
        }
        let mut abi = None;
        let mut manifest = None;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(not_wasm)? {
                Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                    manifest.get_or_insert_with(|| section.data().to_vec());
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let export = export.map_err(not_wasm)?;
                        if export.kind == ExternalKind::Func {
                            abi = abi.or_else(|| AbiVersion::of_export(export.name));
                        }
                    }
                }
                Payload::CodeSectionStart { count, .. } => {
                    within("functions in the module", count.into(), bounds.functions.into())?;
                }
                Payload::CodeSectionEntry(body) => {
                    let length = body.range().len() as u64;
                    within("bytes in one function", length, bounds.function_bytes)?;
                }
                _ => {}
            }
        }
        Ok(Outline { abi: abi.ok_or(ModuleError::NoAbi)?, manifest })
    }

    /// The callbacks the manifest says the filter implements; all if it does not say.
    fn implemented(&self) -> Callbacks {
        let manifest = self.manifest.as_deref().and_then(|text| serde_json::from_slice(text).ok());
        let names = manifest.as_ref().and_then(|manifest: &Value| manifest.get("callbacks"));
        let Some(Value::Array(names)) = names else { return Callbacks::ALL };
        let known = names.iter().filter_map(|name| Callbacks::named(name.as_str()?));
        known.fold(Callbacks::default(), Callbacks::union)
    }
}

pub(crate) fn not_wasm(error: wasmparser::BinaryReaderError) -> ModuleError {
    ModuleError::NotWasm(error.to_string())
}

fn within(what: &'static str, found: u64, limit: u64) -> Result<(), ModuleError> {
    if found > limit { Err(ModuleError::TooLarge { what, found, limit }) } else { Ok(()) }
}

/// A compiled module. Clones are handles to the same code.
#[derive(Clone)]
pub struct Module(Arc<Compiled>);

struct Compiled {
    name: String,
    hash: ModuleHash,
    outline: Outline,
    layout: Layout,
    stubs: Vec<String>,
    callbacks: Callbacks,
    exported: Places,
    instance: InstancePre<Data>,
}

impl Module {
    /// Resolves the imports of compiled code.
    pub(crate) fn link(
        name: &str,
        hash: ModuleHash,
        outline: Outline,
        layout: Layout,
        code: wasmtime::Module,
        functions: &Functions,
    ) -> Result<Module, ModuleError> {
        if !matches!(code.get_export("memory"), Some(ExternType::Memory(_))) {
            return Err(ModuleError::Missing("memory"));
        }
        if !exports::has_allocator(&code) {
            return Err(ModuleError::Missing("proxy_on_memory_allocate or malloc"));
        }
        let (instance, stubs) = resolve(&code, functions)?;
        let callbacks = exports::callbacks(&code).intersection(outline.implemented());
        let exported = Places::of(&code, callbacks);
        let name = name.to_owned();
        let compiled = Compiled { name, hash, outline, layout, stubs, callbacks, exported, instance };
        Ok(Module(Arc::new(compiled)))
    }

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
        self.0.outline.abi
    }

    /// The manifest in its custom section `meshgate.manifest`, if any.
    pub fn manifest(&self) -> Option<&[u8]> {
        self.0.outline.manifest.as_deref()
    }

    /// The imports this host does not know, as `module.name`; calling one answers UNIMPLEMENTED.
    pub fn stubs(&self) -> &[String] {
        &self.0.stubs
    }

    /// The functions it imports, as `module.name`, in its order.
    pub fn imports(&self) -> impl Iterator<Item = String> {
        self.0.instance.module().imports().map(|import| format!("{}.{}", import.module(), import.name()))
    }

    /// The names of what it exports, in its order.
    pub fn exports(&self) -> impl Iterator<Item = &str> {
        self.0.instance.module().exports().map(|export| export.name())
    }

    /// The stream callbacks it exports, less those its manifest says do nothing.
    pub fn callbacks(&self) -> Callbacks {
        self.0.callbacks
    }

    /// How the code that runs differs from the module as it came.
    pub(crate) fn layout(&self) -> Layout {
        self.0.layout
    }

    /// Where the functions are that a VM calls.
    pub(crate) fn exported(&self) -> &Places {
        &self.0.exported
    }

    pub(crate) fn instance(&self) -> &InstancePre<Data> {
        &self.0.instance
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
    Outline::read(bytes, &ModuleBounds::NONE).map(|outline| outline.manifest)
}

/// Finds every import; what this host does not know, or knows with other types, becomes a stub.
fn resolve(
    code: &wasmtime::Module,
    functions: &Functions,
) -> Result<(InstancePre<Data>, Vec<String>), ModuleError> {
    let mut linker = functions.linker().clone();
    linker.allow_shadowing(true);
    let mut stubs = Vec::new();
    for import in code.imports() {
        let (module, name) = (import.module(), import.name());
        let ExternType::Func(wanted) = import.ty() else {
            return Err(ModuleError::Import { module: module.into(), name: name.into() });
        };
        if functions.offers(module, name, &wanted) {
            continue;
        }
        let answer = if module.starts_with("wasi") { ERRNO_NOSYS } else { Status::Unimplemented as u32 };
        let path = format!("{module}.{name}");
        let trap = format!("the guest called `{path}`, which this host does not offer");
        let odd =
            wanted.results().len() > 1 || wanted.results().any(|result| !matches!(result, ValType::I32));
        let stub = move |caller: wasmtime::Caller<'_, Data>, _: &[Val], results: &mut [Val]| {
            let code = run(caller, Allowed::Always, |_| match odd {
                true => Err(Stop::Trap(wasmtime::Error::msg(trap.clone()))),
                false => Err(Stop::Code(answer)),
            })?;
            results.iter_mut().for_each(|result| *result = Val::I32(code.cast_signed()));
            Ok(())
        };
        linker
            .func_new(module, name, wanted, stub)
            .map_err(|error| ModuleError::Compile(format!("{error:#}")))?;
        stubs.push(if odd { format!("{path} (traps)") } else { path });
    }
    let instance =
        linker.instantiate_pre(code).map_err(|error| ModuleError::Compile(format!("{error:#}")))?;
    Ok((instance, stubs))
}
