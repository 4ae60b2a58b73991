//! `compress` and `uncompress`: bytes to a zlib stream and back.

use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;

use crate::memory::Stop;
use crate::state::Running;
use crate::status::Status;

/// zlib's default.
const LEVEL: u8 = 6;
/// Compressing a byte takes as long as copying many, so it counts as many.
const COMPRESSED_BYTE: usize = 8;

pub(super) fn compress(argument: &[u8], running: &mut Running) -> Result<Vec<u8>, Stop> {
    running.charge_bytes(argument.len().saturating_mul(COMPRESSED_BYTE - 1))?;
    Ok(compress_to_vec_zlib(argument, LEVEL))
}

/// What grows beyond half of what the callback may still copy is not unpacked: it counts once for being made and
/// once for being handed over.
pub(super) fn uncompress(argument: &[u8], running: &mut Running) -> Result<Vec<u8>, Stop> {
    let most = usize::try_from(running.copied_left() / 2).unwrap_or(usize::MAX);
    match decompress_to_vec_zlib_with_limit(argument, most) {
        Ok(plain) => {
            running.charge_bytes(plain.len())?;
            Ok(plain)
        }
        Err(error) => {
            running.charge_bytes(error.output.len())?;
            Err(Status::SerializationFailure.into())
        }
    }
}
