//! What went wrong in a guest, told in words.

use std::rc::Rc;
use std::sync::Arc;

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use crate::bulk::Layout;
use crate::core::Core;
use crate::error::{Frame, MAX_TEXT, StartError, VmError, excerpt};
use crate::limits::Limit;
use crate::phase::Phase;
use crate::state::{Overrun, VmState};

/// The guest called `proc_exit`.
#[derive(Debug, thiserror::Error)]
#[error("the guest exited with code {0}")]
pub(crate) struct Exit(pub(crate) u32);

/// Frames of a guest's stack that are kept.
const MAX_FRAMES: usize = 12;
/// Bytes of a function's name that are kept, demangled: a short name can stand for a megabyte.
const MAX_FUNCTION: usize = 256;
/// Bytes of a name that is demangled. No compiler makes longer ones, and each failure would wait for it.
const MAX_MANGLED: usize = 4 << 10;

/// Why a callback did not return.
pub(crate) fn classify(error: &wasmtime::Error, core: &Core, phase: Phase, state: &VmState) -> VmError {
    let plugin = core.spec.name.clone();
    let callback = phase.callback();
    let frames = frames(error, core.spec.module.layout());
    if let Some(overrun) = error.downcast_ref::<Overrun>() {
        return match overrun {
            Overrun::Deadline(limit) => VmError::Deadline { plugin, callback, limit: *limit, frames },
            other => VmError::Limit { plugin, callback, what: other.to_string(), frames },
        };
    }
    let trap = error.downcast_ref::<Trap>();
    if trap == Some(&Trap::StackOverflow) {
        return VmError::Limit { plugin, callback, what: "call stack".into(), frames };
    }
    if let (Some(_), Some(refused)) = (trap, state.growth.refused) {
        return VmError::Limit { plugin, callback, what: state.growth.words(refused), frames };
    }
    let cause = match trap {
        Some(trap) => trap.to_string(),
        None => excerpt(error.root_cause(), MAX_TEXT),
    };
    VmError::Trap { plugin, callback, cause, frames }
}

/// The limit that a callback ran into, to be counted. What could not grow was counted when it was refused.
pub(crate) fn limit(error: &wasmtime::Error, phase: Phase) -> Option<Limit> {
    if let Some(overrun) = error.downcast_ref::<Overrun>() {
        return Some(overrun.limit(phase));
    }
    (error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow)).then_some(Limit::Stack)
}

/// Why an instance could not be made.
pub(crate) fn at_instantiation(error: wasmtime::Error, core: &Rc<Core>, state: &VmState) -> StartError {
    if error.downcast_ref::<Trap>().is_some() || error.downcast_ref::<Overrun>().is_some() {
        let limit = limit(&error, Phase::Initialize);
        return failed_at_instantiation(core, classify(&error, core, Phase::Initialize, state), limit);
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        core.exceeded(Limit::Instances);
        return StartError::Overloaded { plugin: core.spec.name.clone() };
    }
    let reason = match state.growth.refused {
        Some(Limit::AllMemory) => return StartError::Overloaded { plugin: core.spec.name.clone() },
        Some(Limit::Memory) => {
            format!("the module's initial memory is more than the {} bytes allowed", state.growth.limit)
        }
        Some(refused) => format!("there is no more than {}", state.growth.words(refused)),
        None => excerpt(error.root_cause(), MAX_TEXT),
    };
    StartError::Instantiate { plugin: core.spec.name.clone(), reason }
}

/// A hostcall of the module's `start` function panicked.
pub(crate) fn panicked_at_instantiation(core: &Core) -> StartError {
    failed_at_instantiation(core, panicked(core, Phase::Initialize), None)
}

fn failed_at_instantiation(core: &Core, error: VmError, limit: Option<Limit>) -> StartError {
    core.failed(&error, limit);
    StartError::Failed(error)
}

/// A hostcall panicked.
pub(crate) fn panicked(core: &Core, phase: Phase) -> VmError {
    VmError::Host { plugin: core.spec.name.clone(), callback: phase.callback() }
}

/// Whether it is no failure at all: a command's `_start` that ended by `proc_exit(0)`.
pub(crate) fn is_clean_exit(error: &wasmtime::Error, phase: Phase) -> bool {
    phase == Phase::Initialize && matches!(error.downcast_ref::<Exit>(), Some(Exit(0)))
}

fn frames(error: &wasmtime::Error, layout: Layout) -> Arc<[Frame]> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return Arc::new([]) };
    let frame = |frame: &wasmtime::FrameInfo| {
        let offset = layout.original(frame.func_index(), frame.module_offset())?;
        let function = match frame.func_name() {
            Some(name) => function(name),
            None => format!("function {}", frame.func_index()),
        };
        Some(Frame { function, offset })
    };
    backtrace.frames().iter().filter_map(frame).take(MAX_FRAMES).collect()
}

/// A function's name for people. The module says it, and may say anything.
fn function(name: &str) -> String {
    if name.len() > MAX_MANGLED {
        return excerpt(name, MAX_FUNCTION);
    }
    excerpt(format_args!("{:#}", rustc_demangle::demangle(name)), MAX_FUNCTION)
}
