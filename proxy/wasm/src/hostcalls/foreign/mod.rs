//! Foreign functions: the way to everything the ABI has no words for. Answered here are those that need nothing but their
//! argument and what the VMs share; all others are the embedder's.

mod cancel;
mod compression;
mod declaration;
mod kv;
mod message;
mod signatures;

use std::rc::Rc;

pub(crate) use self::declaration::{Declarations, Declared};
use super::Functions;
use super::metrics::admit;
use crate::host::ForeignCaller;
use crate::limits::Limit;
use crate::memory::{Allowed, Call, Outcome, Parts, Span, run, slice};
use crate::metrics::SeriesSpec;
use crate::remains::Data;
use crate::state::VmState;
use crate::status::Status;

/// Bytes of a function's name.
const MAX_NAME: usize = 256;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    #[rustfmt::skip]
    fn function(
        c: wasmtime::Caller<'_, Data>, n: u32, nn: u32, a: u32, an: u32, address_at: u32, size_at: u32,
    ) -> wasmtime::Result<u32> {
        run(c, Allowed::InCallbacks, |call| foreign(call, (n, nn), (a, an), address_at, size_at))
    }
    functions.define("env", "proxy_call_foreign_function", &['i'; 6], function)
}

/// The pointers for the answer may be null when the guest wants none.
fn foreign(call: &mut Call<'_>, name: Span, argument: Span, address_at: u32, size_at: u32) -> Outcome {
    let wanted = address_at != 0 && size_at != 0;
    if wanted {
        call.check((address_at, 4))?;
        call.check((size_at, 4))?;
    }
    let root = call.root()?;
    let host = Rc::clone(&call.state().host);
    let stream = call.state().stream().cloned();
    let exchange = stream.as_ref().and_then(|stream| Some((stream.exchange.upgrade()?, stream.place)));
    let Parts { memory, state } = call.parts();
    let (name, argument) = (slice(memory, name)?, slice(memory, argument)?);
    state.running.charge_bytes(name.len() + argument.len())?;
    if name.len() > MAX_NAME {
        return Err(Status::NotFound.into());
    }
    let name = std::str::from_utf8(name).map_err(|_| Status::NotFound)?;
    message::check(name, argument)?;
    let VmState { shared, metrics, running, namespace, grpc, .. } = state;
    let answer = match name {
        "compress" => compression::compress(argument, running)?,
        "uncompress" => compression::uncompress(argument, running)?,
        "verify_signature" => signatures::verify(argument)?,
        "sign" => signatures::sign(argument)?,
        cancel::FUNCTION => cancel::cancel(argument, grpc, &root)?,
        kv::FUNCTION => kv::answer(argument, namespace, &root.core, stream.as_deref())?,
        "declare_property" => root.declarations.declare(argument).map(|()| Vec::new())?,
        // A route is decided after the request's filters, so there is nothing to forget.
        "clear_route_cache" => Vec::new(),
        _ => {
            let mut series = |spec: &SeriesSpec<'_>| -> Result<u32, Status> {
                metrics.id(shared.metrics().series(spec, || admit(&root.core, Limit::Series))?)
            };
            let mut caller = ForeignCaller {
                core: &root.core,
                stream: exchange.as_ref().map(|(exchange, place)| (&**exchange, *place)),
                series: &mut series,
            };
            host.foreign_function(&mut caller, name, argument)?
        }
    };
    if wanted { call.give(&answer, address_at, size_at) } else { Ok(()) }
}
