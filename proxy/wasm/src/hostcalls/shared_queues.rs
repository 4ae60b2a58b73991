//! Shared queues.

use super::{Functions, functions};
use crate::memory::{Call, Outcome};
use crate::shared::Registrant;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    functions!(functions, "env", InCallbacks, {
        "proxy_register_shared_queue" => register[name: u32, length: u32, id_at: u32];
        "proxy_resolve_shared_queue" =>
            resolve[vm: u32, vm_length: u32, name: u32, length: u32, id_at: u32];
        "proxy_enqueue_shared_queue" => enqueue[id: u32, text: u32, size: u32];
        "proxy_dequeue_shared_queue" => dequeue[id: u32, address_at: u32, size_at: u32];
    });
    Ok(())
}

fn register(call: &mut Call<'_>, name: u32, length: u32, id_at: u32) -> Outcome {
    call.check((id_at, 4))?;
    let core = call.root()?.core.clone();
    let (name, state) = call.read((name, length))?;
    let by = Registrant {
        owner: &core.usage.ledger,
        limits: &core.spec.limits,
        mailbox: &state.mailbox,
        plugin: core.key,
    };
    let id = state.shared.queues().register(&core.spec.vm_id, name, &by)?;
    call.write_u32(id_at, id)
}

/// An empty VM id is the caller's own.
fn resolve(call: &mut Call<'_>, vm: u32, vm_length: u32, name: u32, length: u32, id_at: u32) -> Outcome {
    let own = call.root()?.core.spec.clone();
    let shared = call.state().shared.clone();
    let (vm, name) = call.read_two((vm, vm_length), (name, length))?;
    let vm = String::from_utf8_lossy(vm);
    let vm = if vm.is_empty() { own.vm_id.as_str() } else { &vm };
    let id = shared.queues().resolve(vm, name)?;
    call.write_u32(id_at, id)
}

fn enqueue(call: &mut Call<'_>, id: u32, text: u32, size: u32) -> Outcome {
    let (item, state) = call.read((text, size))?;
    Ok(state.shared.queues().enqueue(id, item)?)
}

fn dequeue(call: &mut Call<'_>, id: u32, address_at: u32, size_at: u32) -> Outcome {
    call.check((address_at, 4))?;
    call.check((size_at, 4))?;
    let item = call.state().shared.queues().dequeue(id)?;
    let given = call.give(&item, address_at, size_at);
    if given.is_err() {
        // The guest had no memory for it, or failed when asked for some: the item is for the next to come.
        call.state().shared.queues().put_back(id, item);
    }
    given
}
