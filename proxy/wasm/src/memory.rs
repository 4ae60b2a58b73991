//! A hostcall as it runs: the guest's memory, the store's data, and the budgets of both.

use std::rc::Rc;

use wasmtime::{AsContextMut, Caller, StoreContextMut};

use crate::contexts::{Entry, Root};
use crate::phase::Phase;
use crate::remains::Data;
use crate::state::{Overrun, VmState};
use crate::status::Status;

/// Why a hostcall ends early.
pub(crate) enum Stop {
    /// The guest is told.
    Code(u32),
    /// The guest is stopped.
    Trap(wasmtime::Error),
}

/// What a hostcall comes to.
pub(crate) type Outcome = Result<(), Stop>;

impl From<Status> for Stop {
    fn from(status: Status) -> Stop {
        Stop::Code(status as u32)
    }
}

impl From<Overrun> for Stop {
    fn from(overrun: Overrun) -> Stop {
        Stop::Trap(wasmtime::Error::new(overrun))
    }
}

/// A pointer and a length from the guest.
pub(crate) type Span = (u32, u32);

/// When a hostcall may be made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// At any time, also while the guest's allocator or its initialisation runs.
    Always,
    /// Only in callbacks: in the allocator it stops the guest, during initialisation it fails.
    InCallbacks,
}

/// A hostcall that is being answered.
pub(crate) struct Call<'a> {
    store: StoreContextMut<'a, Data>,
}

/// The guest's memory and the store's data at once, until the guest's allocator runs. The way to the memory leads through half a
/// dozen pointers, so a hostcall goes it once, and once more after it allocated.
pub(crate) struct Parts<'a> {
    pub(crate) memory: &'a mut [u8],
    pub(crate) state: &'a mut VmState,
}

/// Runs one hostcall within the budgets and the callback's time.
pub(crate) fn run(
    mut caller: Caller<'_, Data>,
    allowed: Allowed,
    hostcall: impl FnOnce(&mut Call<'_>) -> Outcome,
) -> wasmtime::Result<u32> {
    let state = caller.data_mut();
    state.running.charge_call().map_err(wasmtime::Error::new)?;
    state.running.in_time().map_err(wasmtime::Error::new)?;
    if allowed == Allowed::InCallbacks {
        if state.running.allocating {
            return Err(wasmtime::Error::new(Overrun::Allocator));
        }
        if state.running.phase == Phase::Initialize {
            return Ok(Status::InternalFailure as u32);
        }
    }
    if state.memory.is_none() && !finds_memory(&mut caller) {
        return Ok(Status::InvalidMemoryAccess as u32);
    }
    match hostcall(&mut Call { store: caller.as_context_mut() }) {
        Ok(()) => Ok(Status::Ok as u32),
        Err(Stop::Code(code)) => Ok(code),
        Err(Stop::Trap(error)) => Err(error),
    }
}

/// The module's `start` function runs before the host has looked at the exports.
#[cold]
fn finds_memory(caller: &mut Caller<'_, Data>) -> bool {
    let memory = caller.get_export("memory").and_then(wasmtime::Extern::into_memory);
    caller.data_mut().memory = memory;
    memory.is_some()
}

impl Call<'_> {
    pub(crate) fn state(&mut self) -> &mut VmState {
        self.store.data_mut()
    }

    /// Memory and data at once.
    pub(crate) fn parts(&mut self) -> Parts<'_> {
        let Some(memory) = self.store.data().memory else {
            // Made sure of before the hostcall began.
            return Parts { memory: &mut [], state: self.store.data_mut() };
        };
        let (memory, state) = memory.data_and_store_mut(&mut self.store);
        Parts { memory, state }
    }

    /// The root context of the effective one. There is one in every callback.
    pub(crate) fn root(&mut self) -> Result<Rc<Root>, Stop> {
        Ok(Rc::clone(self.state().root()?))
    }

    /// A moment as the plugin may see it. The module's `start` function sees it as everybody does.
    pub(crate) fn moment(&mut self, nanoseconds: u64) -> u64 {
        match self.state().running.effective() {
            Some(entry) => entry.core().spec.may.moment(nanoseconds),
            None => nanoseconds,
        }
    }

    pub(crate) fn effective(&mut self) -> Result<Entry, Stop> {
        self.state().running.effective().cloned().ok_or(Status::InternalFailure.into())
    }

    /// Bytes of the guest and the data at once, counted.
    pub(crate) fn read(&mut self, span: Span) -> Result<(&[u8], &mut VmState), Stop> {
        self.parts().read(span)
    }

    /// Two ranges of the guest's bytes, counted.
    pub(crate) fn read_two(&mut self, first: Span, second: Span) -> Result<(&[u8], &[u8]), Stop> {
        self.parts().read_two(first, second).map(|(first, second, _)| (first, second))
    }

    /// A copy of bytes of the guest.
    pub(crate) fn copy(&mut self, span: Span) -> Result<Vec<u8>, Stop> {
        self.read(span).map(|(bytes, _)| bytes.to_vec())
    }

    pub(crate) fn write_u32(&mut self, pointer: u32, value: u32) -> Outcome {
        self.parts().write(pointer, &value.to_le_bytes())
    }

    pub(crate) fn write_u64(&mut self, pointer: u32, value: u64) -> Outcome {
        self.parts().write(pointer, &value.to_le_bytes())
    }

    /// Fails if the guest's memory does not reach that far; writes nothing.
    pub(crate) fn check(&mut self, span: Span) -> Outcome {
        self.parts().check(span)
    }

    /// Hands bytes to the guest: memory from its allocator, address and size where it wants them.
    pub(crate) fn give(&mut self, bytes: &[u8], address_at: u32, size_at: u32) -> Outcome {
        self.give_with(bytes.len(), address_at, size_at, |out| {
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    /// As [`Call::give`], with bytes that are written in place.
    pub(crate) fn give_with(
        &mut self,
        size: usize,
        address_at: u32,
        size_at: u32,
        fill: impl FnOnce(&mut [u8]) -> Result<(), Status>,
    ) -> Outcome {
        let mut parts = self.parts();
        parts.check((address_at, 4))?;
        parts.check((size_at, 4))?;
        let size = u32::try_from(size).map_err(|_| Status::InternalFailure)?;
        parts.state.running.charge_bytes(size as usize)?;
        let mut address = 0;
        if size > 0 {
            address = self.allocate(size)?;
            parts = self.parts();
            let given = slice_mut(parts.memory, (address, size))?;
            if address == 0 {
                return Err(Status::InvalidMemoryAccess.into());
            }
            fill(given)?;
        }
        parts.write(address_at, &address.to_le_bytes())?;
        parts.write(size_at, &size.to_le_bytes())
    }

    /// Where the guest's allocator says.
    fn allocate(&mut self, size: u32) -> Result<u32, Stop> {
        let state = self.state();
        let allocate = state.allocate.clone().ok_or(Status::InternalFailure)?;
        state.running.allocating = true;
        let address = allocate.call(&mut self.store, size).map_err(Stop::Trap)?;
        self.state().running.allocating = false;
        Ok(address)
    }
}

impl<'a> Parts<'a> {
    /// As [`Call::check`].
    pub(crate) fn check(&self, span: Span) -> Outcome {
        slice(self.memory, span).map(drop).map_err(Stop::from)
    }

    /// As [`Call::read`].
    pub(crate) fn read(self, span: Span) -> Result<(&'a [u8], &'a mut VmState), Stop> {
        let bytes = slice(self.memory, span)?;
        self.state.running.charge_bytes(bytes.len())?;
        Ok((bytes, self.state))
    }

    /// As [`Call::read_two`], and the data.
    pub(crate) fn read_two(
        self,
        first: Span,
        second: Span,
    ) -> Result<(&'a [u8], &'a [u8], &'a mut VmState), Stop> {
        let (first, second) = (slice(self.memory, first)?, slice(self.memory, second)?);
        self.state.running.charge_bytes(first.len() + second.len())?;
        Ok((first, second, self.state))
    }

    /// Writes to the guest's memory, counted.
    pub(crate) fn write(&mut self, pointer: u32, bytes: &[u8]) -> Outcome {
        let length = u32::try_from(bytes.len()).map_err(|_| Status::InvalidMemoryAccess)?;
        slice_mut(self.memory, (pointer, length))?.copy_from_slice(bytes);
        self.state.running.charge_bytes(bytes.len())?;
        Ok(())
    }
}

/// The guest's bytes there; computed in 64 bits, since guests pass lengths up to 2^32 - 1.
pub(crate) fn slice(memory: &[u8], (pointer, length): Span) -> Result<&[u8], Status> {
    let end = u64::from(pointer) + u64::from(length);
    if end > memory.len() as u64 {
        return Err(Status::InvalidMemoryAccess);
    }
    Ok(&memory[pointer as usize..end as usize])
}

/// As [`slice`], to be written.
pub(crate) fn slice_mut(memory: &mut [u8], (pointer, length): Span) -> Result<&mut [u8], Status> {
    let end = u64::from(pointer) + u64::from(length);
    if end > memory.len() as u64 {
        return Err(Status::InvalidMemoryAccess);
    }
    Ok(&mut memory[pointer as usize..end as usize])
}
