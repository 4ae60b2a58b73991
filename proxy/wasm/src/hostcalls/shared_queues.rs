//! Shared queues. A guest uses those that its VM has registered or found: other tokens are none to it.

use std::sync::Arc;

use super::{Functions, functions};
use crate::memory::{Call, Outcome};
use crate::shared::{Queue, Registrant};
use crate::status::Status;

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
    let queue = state.shared.queues().register(&core.spec.vm_id, name, &by)?;
    hand_out(call, &queue, true, id_at)
}

/// An empty VM id is the caller's own.
fn resolve(call: &mut Call<'_>, vm: u32, vm_length: u32, name: u32, length: u32, id_at: u32) -> Outcome {
    let own = call.root()?.core.spec.clone();
    let shared = call.state().shared.clone();
    let (vm, name) = call.read_two((vm, vm_length), (name, length))?;
    let is_own = vm.is_empty() || vm == own.vm_id.as_bytes();
    let vm =
        if is_own { own.vm_id.as_str() } else { std::str::from_utf8(vm).map_err(|_| Status::NotFound)? };
    let queue = shared.queues().resolve(vm, name)?;
    hand_out(call, &queue, is_own, id_at)
}

/// Gives the guest a queue's token, by which it may put items in from now on, and take them out if the queue is of its
/// own VM id.
fn hand_out(call: &mut Call<'_>, queue: &Arc<Queue>, is_own: bool, id_at: u32) -> Outcome {
    call.write_u32(id_at, queue.token())?;
    call.state().queues.learn(queue, is_own);
    Ok(())
}

fn enqueue(call: &mut Call<'_>, id: u32, text: u32, size: u32) -> Outcome {
    let (item, state) = call.read((text, size))?;
    Ok(state.queues.find(id)?.enqueue(item)?)
}

fn dequeue(call: &mut Call<'_>, id: u32, address_at: u32, size_at: u32) -> Outcome {
    call.check((address_at, 4))?;
    call.check((size_at, 4))?;
    let queue = call.state().queues.find_own(id)?;
    let item = queue.dequeue()?;
    let given = call.give(&item, address_at, size_at);
    if given.is_err() {
        // The guest had no memory for it, or failed when asked for some: the item is for the next to come.
        queue.put_back(item);
    }
    given
}
