//! gRPC calls. Not offered yet: a call to anything answers PARSE_FAILURE, which is what guests see for an
//! upstream that does not exist; no call has an id, so everything about one answers NOT_FOUND.

use super::{Functions, functions};
use crate::memory::{Allowed, Call, Outcome, run};
use crate::state::VmState;
use crate::status::Status;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    functions!(functions, "env", InCallbacks, {
        "proxy_grpc_send" => send[id: u32, text: u32, size: u32, end: u32];
        "proxy_grpc_cancel" => cancel[id: u32];
        "proxy_grpc_close" => cancel[id: u32];
    });
    type Caller<'a> = wasmtime::Caller<'a, VmState>;
    fn refuse(caller: Caller<'_>) -> wasmtime::Result<u32> {
        run(caller, Allowed::InCallbacks, |_| Err(Status::ParseFailure.into()))
    }
    #[expect(clippy::too_many_arguments, reason = "the ABI's")]
    #[rustfmt::skip]
    fn call(
        c: Caller<'_>, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32,
    ) -> wasmtime::Result<u32> {
        refuse(c)
    }
    #[expect(clippy::too_many_arguments, reason = "the ABI's")]
    #[rustfmt::skip]
    fn stream(
        c: Caller<'_>, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32,
    ) -> wasmtime::Result<u32> {
        refuse(c)
    }
    functions.define("env", "proxy_grpc_call", &['i'; 12], call)?;
    functions.define("env", "proxy_grpc_stream", &['i'; 9], stream)
}

fn send(_: &mut Call<'_>, _: u32, _: u32, _: u32, _: u32) -> Outcome {
    Err(Status::NotFound.into())
}

fn cancel(_: &mut Call<'_>, _: u32) -> Outcome {
    Err(Status::NotFound.into())
}
