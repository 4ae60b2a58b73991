//! The engine: compiler settings, the ticker behind deadlines, and the way from a module's bytes to code.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wasmtime::{
    Config, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, WasmBacktraceDetails,
};

use crate::cache::Cache;
use crate::error::{EngineError, ModuleError};
use crate::hostcalls::Functions;
use crate::module::{self, Bounds, Module};
use crate::state::{MAX_TABLE_ELEMENTS, MAX_TABLES};

/// How often the epoch moves on: the resolution of deadlines.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// What guests may use of the native stack. Hostcalls run on what is left of the thread's, so it stays small.
const GUEST_STACK: usize = 512 << 10;
/// The most linear memory any plugin may be allowed; address space is set aside for it in every slot.
pub(crate) const MAX_MEMORY: usize = 1 << 30;

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
    /// The most bytes one function's body may have. Default 1 MiB.
    pub max_function_bytes: u64,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            cache: None,
            max_instances: 1_000,
            max_module_bytes: 10 << 20,
            max_functions: 20_000,
            max_function_bytes: 1 << 20,
        }
    }
}

/// Compiles modules. One per process; clones are handles to the same engine.
#[derive(Clone)]
pub struct Engine(Arc<Parts>);

struct Parts {
    wasmtime: wasmtime::Engine,
    functions: Functions,
    cache: Option<Cache>,
    bounds: Bounds,
}

impl Engine {
    /// Sets the engine up and starts its ticker thread, which ends with the last handle.
    ///
    /// # Errors
    /// The platform refuses what the engine needs.
    pub fn new(options: EngineOptions) -> Result<Engine, EngineError> {
        let wasmtime = match wasmtime::Engine::new(&configuration(Some(options.max_instances))) {
            Ok(engine) => engine,
            Err(error) => {
                // Address space may be limited (ulimit -v); VMs then get their memory one by one.
                tracing::warn!(%error, "no pool of WebAssembly memories, allocating on demand");
                wasmtime::Engine::new(&configuration(None)).map_err(EngineError::from_wasmtime)?
            }
        };
        let functions = Functions::link(&wasmtime).map_err(EngineError::from_wasmtime)?;
        let cache = options.cache.as_deref().and_then(|directory| match Cache::open(directory, &wasmtime) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "compiled modules are not cached");
                None
            }
        });
        start_ticker(wasmtime.weak())?;
        let bounds = Bounds {
            bytes: options.max_module_bytes,
            functions: options.max_functions,
            function_bytes: options.max_function_bytes,
        };
        Ok(Engine(Arc::new(Parts { wasmtime, functions, cache, bounds })))
    }

    /// Checks and compiles a module, or takes it from the cache. Takes long: not for a worker's thread.
    ///
    /// # Errors
    /// Why the module cannot be used.
    pub fn compile(&self, name: &str, bytes: &[u8]) -> Result<Module, ModuleError> {
        let outline = module::Outline::read(bytes, &self.0.bounds)?;
        let hash = module::ModuleHash::of(bytes);
        let cached = self.0.cache.as_ref().and_then(|cache| cache.load(&self.0.wasmtime, &hash));
        let code = match cached {
            Some(code) => code,
            None => {
                let code = wasmtime::Module::from_binary(&self.0.wasmtime, bytes)
                    .map_err(|error| ModuleError::Compile(format!("{error:#}")))?;
                if let Some(cache) = &self.0.cache {
                    cache.store(&hash, &code);
                }
                code
            }
        };
        Module::link(name, hash, outline, code, &self.0.functions)
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.0.wasmtime
    }
}

impl EngineError {
    fn from_wasmtime(error: wasmtime::Error) -> EngineError {
        EngineError(format!("{error:#}"))
    }
}

fn configuration(pool: Option<u32>) -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK)
        .memory_init_cow(true)
        .native_unwind_info(false)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // Plain SIMD, bulk memory, reference types, multi-value, sign extension and mutable globals stay on;
        // threads, garbage collection, exceptions and components are not compiled in.
        .wasm_tail_call(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false);
    if let Some(instances) = pool {
        let mut pooling = PoolingAllocationConfig::new();
        pooling
            .total_core_instances(instances)
            .total_memories(instances)
            .total_tables(instances.saturating_mul(2))
            .max_memories_per_module(1)
            .max_tables_per_module(MAX_TABLES as u32)
            .max_memory_size(MAX_MEMORY)
            .table_elements(MAX_TABLE_ELEMENTS)
            // VMs live long; what a dropped one leaves behind should not stay resident.
            .max_unused_warm_slots(4)
            .linear_memory_keep_resident(0)
            .table_keep_resident(0)
            .decommit_batch_size(1);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling));
    }
    config
}

/// Moves the epoch on every [`TICK`] for as long as the engine lives.
fn start_ticker(engine: EngineWeak) -> Result<(), EngineError> {
    let ticker = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    };
    thread::Builder::new()
        .name("wasm-ticker".into())
        .spawn(ticker)
        .map(drop)
        .map_err(|error| EngineError(format!("the ticker thread: {error}")))
}
