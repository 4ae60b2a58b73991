//! `meshgate.encode`: a filter decides that a response's body goes to the client compressed. Called by `extensions`; `exchange`
//! does it when the filters are through.

use meshgate_abi::Encode;
use meshgate_wasm::{ForeignCaller, Permit, Status};
use prost::Message;

use super::stream::Stream;

/// What zlib takes if it is not told.
const USUAL_LEVEL: u8 = 6;

/// How a response's body is encoded: by gzip, which is the one coding there is.
#[derive(Debug)]
pub struct Encoding {
    /// From 1, quick, to 9, thorough.
    pub level: u8,
    /// Its place among those of the filter that are under way.
    pub permit: Permit,
}

/// Decides for the current exchange. What was decided before is replaced.
pub(super) fn set(caller: &ForeignCaller<'_>, argument: &[u8]) -> Result<Vec<u8>, Status> {
    let exchange = caller.exchange().ok_or(Status::BadArgument)?.as_any();
    let stream = exchange.downcast_ref::<Stream>().ok_or(Status::BadArgument)?;
    let Encode { coding, level } = Encode::decode(argument).map_err(|_| Status::BadArgument)?;
    let level = match u8::try_from(level) {
        Ok(0) => USUAL_LEVEL,
        Ok(level @ 1..=9) => level,
        _ => return Err(Status::BadArgument),
    };
    let has_response = stream.http().borrow().response.is_some();
    if coding != "gzip" || !has_response || stream.response_has_begun() {
        return Err(Status::BadArgument);
    }
    let permit = caller.encoding().ok_or(Status::InternalFailure)?;
    stream.encode(Encoding { level, permit });
    Ok(Vec::new())
}
