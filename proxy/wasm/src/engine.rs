//! The engine: compiler settings, the ticker behind deadlines, and the way from a module's bytes to code.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use wasmtime::{
    Config, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, WasmBacktraceDetails,
    WasmFeatures,
};

use crate::bulk::{self, Pieces};
use crate::cache::Cache;
use crate::error::{EngineError, ModuleError};
use crate::growth::{MAX_TABLE_ELEMENTS, MAX_TABLES};
use crate::hostcalls::Functions;
use crate::module::{self, Module, ModuleBounds};
use crate::remains::Reaper;

/// How often the epoch moves on: the resolution of deadlines.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// What guests may use of the native stack. Hostcalls run on what is left of the thread's, so it stays small.
const GUEST_STACK: usize = 512 << 10;
/// How far a compiler's thread steps back behind the others.
const COMPILER_NICENESS: i32 = 10;
/// Compilations that may go on although nobody waits for them.
const MOST_ABANDONED: usize = 2;
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
    /// What [`Engine::compile`] accepts.
    pub bounds: ModuleBounds,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions { cache: None, max_instances: 1_000, bounds: ModuleBounds::default() }
    }
}

/// How often the epoch has moved on. The epoch itself is seen by guests' code alone.
#[derive(Default)]
pub(crate) struct Ticks(AtomicU64);

impl Ticks {
    /// So many so far.
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Compiles modules. One per process; clones are handles to the same engine.
#[derive(Clone)]
pub struct Engine(Arc<Parts>);

struct Parts {
    wasmtime: wasmtime::Engine,
    ticks: Arc<Ticks>,
    functions: Functions,
    reaper: Reaper,
    cache: Option<Cache>,
    bounds: ModuleBounds,
    /// Compilations that nobody waits for any more.
    abandoned: AtomicUsize,
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
        let ticks = Arc::<Ticks>::default();
        start_ticker(wasmtime.weak(), Arc::clone(&ticks))?;
        let reaper = Reaper::new()?;
        let bounds = options.bounds;
        let abandoned = AtomicUsize::new(0);
        Ok(Engine(Arc::new(Parts { wasmtime, ticks, functions, reaper, cache, bounds, abandoned })))
    }

    /// Checks and compiles a module, or takes it from the cache. Takes long: not for a worker's thread.
    ///
    /// # Errors
    /// Why the module cannot be used.
    pub fn compile(&self, name: &str, bytes: &[u8]) -> Result<Module, ModuleError> {
        self.compile_within(name, bytes, &self.0.bounds)
    }

    /// As [`Engine::compile`], within other bounds.
    ///
    /// # Errors
    /// Why the module cannot be used.
    pub fn compile_within(
        &self,
        name: &str,
        bytes: &[u8],
        bounds: &ModuleBounds,
    ) -> Result<Module, ModuleError> {
        let outline = module::Outline::read(bytes, bounds)?;
        let hash = module::ModuleHash::of(bytes);
        let Pieces { bytes: changed, layout } = bulk::in_pieces(bytes).map_err(module::not_wasm)?;
        // Code is kept by what it was compiled from.
        let source =
            if matches!(changed, Cow::Borrowed(_)) { hash } else { module::ModuleHash::of(&changed) };
        let cached = self.0.cache.as_ref().and_then(|cache| cache.load(&self.0.wasmtime, &source));
        let code = match cached {
            Some(code) => code,
            None => self.compile_in_time(bytes, changed, &source, bounds.compile_time)?,
        };
        Module::link(name, hash, outline, layout, code, &self.0.functions)
    }

    /// Compiles on a thread of low priority, which is left to itself when it takes too long: nothing can stop the
    /// compiler. What it makes after all goes into the cache.
    fn compile_in_time(
        &self,
        original: &[u8],
        changed: Cow<'_, [u8]>,
        source: &module::ModuleHash,
        limit: Duration,
    ) -> Result<wasmtime::Module, ModuleError> {
        let failed = |reason: &str| ModuleError::Compile(reason.to_owned());
        if self.0.abandoned.load(Ordering::Relaxed) >= MOST_ABANDONED {
            return Err(failed("the compiler is still busy with modules that take too long"));
        }
        let (parts, source) = (Arc::clone(&self.0), *source);
        // What was changed has to have been good before.
        let original = matches!(changed, Cow::Owned(_)).then(|| original.to_vec());
        let bytes = changed.into_owned();
        let (sender, receiver) = mpsc::sync_channel(0);
        let compile = move || {
            // The compiler's own threads are made by the first of these and inherit its priority. Without the right
            // to lower it, it stays as it is.
            let _ = rustix::process::nice(COMPILER_NICENESS);
            let code = catch_unwind(AssertUnwindSafe(|| {
                original.map_or(Ok(()), |original| wasmtime::Module::validate(&parts.wasmtime, &original))?;
                wasmtime::Module::from_binary(&parts.wasmtime, &bytes)
            }));
            let code = code.unwrap_or_else(|_| Err(wasmtime::Error::msg("the compiler failed")));
            if let (Ok(code), Some(cache)) = (&code, &parts.cache) {
                cache.store(&source, code);
            }
            // Handed over, or refused because nobody waits.
            if sender.send(code).is_err() {
                parts.abandoned.fetch_sub(1, Ordering::Relaxed);
            }
        };
        let thread = thread::Builder::new().name("wasm-compiler".into()).spawn(compile);
        thread.map_err(|error| failed(&format!("no thread for the compiler: {error}")))?;
        match receiver.recv_timeout(limit) {
            Ok(code) => code.map_err(|error| failed(&format!("{error:#}"))),
            Err(RecvTimeoutError::Timeout) => {
                self.0.abandoned.fetch_add(1, Ordering::Relaxed);
                Err(ModuleError::TooSlow { limit })
            }
            Err(RecvTimeoutError::Disconnected) => Err(failed("the compiler failed")),
        }
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.0.wasmtime
    }

    /// Who gives back the memory of VMs that end.
    pub(crate) fn reaper(&self) -> Reaper {
        self.0.reaper.clone()
    }

    /// Its clock, for who has to know the time between two looks at the epoch.
    pub(crate) fn ticks(&self) -> Arc<Ticks> {
        Arc::clone(&self.0.ticks)
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
        .wasm_wide_arithmetic(false)
        .wasm_features(WasmFeatures::FUNCTION_REFERENCES, false);
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

/// Moves the epoch on every [`TICK`] for as long as the engine lives. By the clock: a sleep that takes a little longer
/// each time does not add up. A machine that stood still for long is not made up for.
fn start_ticker(engine: EngineWeak, ticks: Arc<Ticks>) -> Result<(), EngineError> {
    const LOST: Duration = Duration::from_millis(20);
    let ticker = move || {
        let mut next = Instant::now();
        while let Some(engine) = engine.upgrade() {
            // In this order: who sees the epoch move finds the tick there.
            ticks.advance();
            engine.increment_epoch();
            drop(engine);
            next += TICK;
            let now = Instant::now();
            if now > next + LOST {
                next = now;
            }
            thread::sleep(next.saturating_duration_since(now));
        }
    };
    thread::Builder::new()
        .name("wasm-ticker".into())
        .spawn(ticker)
        .map(drop)
        .map_err(|error| EngineError(format!("the ticker thread: {error}")))
}
