//! `meshgate.cancel`: a call, or a gRPC stream, ends, and the guest is told so. For SDKs that keep what they know of one until
//! its end.

use std::rc::Rc;

use meshgate_abi::{Cancel, function};
use prost::Message;

use crate::contexts::Root;
use crate::grpc::{Class, GrpcTable};
use crate::status::Status;

/// The foreign function's name.
pub(super) const FUNCTION: &str = function::CANCEL;

pub(super) fn cancel(argument: &[u8], calls: &GrpcTable, root: &Rc<Root>) -> Result<Vec<u8>, Status> {
    let Cancel { call } = Cancel::decode(argument).map_err(|_| Status::BadArgument)?;
    if Class::Http.is_of(call) {
        let cancellation = root.open_calls.borrow().get(&call).cloned();
        cancellation.ok_or(Status::BadArgument)?.cancel();
        return Ok(Vec::new());
    }
    calls.find(call, root).ok_or(Status::BadArgument)?.cancel();
    Ok(Vec::new())
}
