//! `compress` and `uncompress`: bytes to a zlib stream and back. Piece by piece, with a look at the callback's time in between:
//! a guest can ask for more work in one call than a callback may take.

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output, create_comp_flags_from_zip_params,
};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

use crate::memory::Stop;
use crate::state::Running;
use crate::status::Status;

/// zlib's default.
const LEVEL: i32 = 6;
/// With zlib's header and checksum.
const ZLIB: i32 = 1;
/// Compressing a byte takes as long as copying many, so it counts as many.
const COMPRESSED_BYTE: usize = 8;
/// Bytes of input between two looks at the time.
const PIECE: usize = 16 << 10;
/// Bytes of output by which an unpacked stream may go on between two looks.
const GROWTH: usize = 256 << 10;

pub(super) fn compress(argument: &[u8], running: &mut Running) -> Result<Vec<u8>, Stop> {
    running.charge_bytes(argument.len().saturating_mul(COMPRESSED_BYTE - 1))?;
    let mut compressor = CompressorOxide::new(create_comp_flags_from_zip_params(LEVEL, ZLIB, 0));
    let mut packed = Vec::with_capacity(argument.len() / 2);
    let mut take = |bytes: &[u8]| {
        packed.extend_from_slice(bytes);
        true
    };
    for piece in argument.chunks(PIECE) {
        compress_to_output(&mut compressor, piece, TDEFLFlush::None, &mut take);
        running.in_time()?;
    }
    match compress_to_output(&mut compressor, &[], TDEFLFlush::Finish, &mut take) {
        (TDEFLStatus::Done, _) => Ok(packed),
        _ => Err(Status::InternalFailure.into()),
    }
}

/// What grows beyond half of what the callback may still copy is not unpacked: it counts once for being made and
/// once for being handed over.
pub(super) fn uncompress(argument: &[u8], running: &mut Running) -> Result<Vec<u8>, Stop> {
    let most = usize::try_from(running.copied_left() / 2).unwrap_or(usize::MAX);
    let mut unpacked = Unpacked { plain: Vec::new(), length: 0, most };
    let whole = unpacked.fill(argument, running);
    running.charge_bytes(unpacked.length)?;
    if !whole? {
        return Err(Status::SerializationFailure.into());
    }
    unpacked.plain.truncate(unpacked.length);
    Ok(unpacked.plain)
}

/// A stream on its way out of its packing.
struct Unpacked {
    plain: Vec<u8>,
    /// Bytes of `plain` that are there.
    length: usize,
    most: usize,
}

impl Unpacked {
    /// Unpacks all of it; false if it is no whole stream, or too long.
    fn fill(&mut self, argument: &[u8], running: &mut Running) -> Result<bool, Stop> {
        let mut inflater = Box::<DecompressorOxide>::default();
        let mut left = argument;
        loop {
            let piece = &left[..left.len().min(PIECE)];
            let more = if piece.len() < left.len() { inflate_flags::TINFL_FLAG_HAS_MORE_INPUT } else { 0 };
            let flags = more
                | inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER
                | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
            let (status, taken, made) = decompress(&mut inflater, piece, &mut self.plain, self.length, flags);
            self.length += made;
            left = left.get(taken..).unwrap_or_default();
            running.in_time()?;
            match status {
                TINFLStatus::Done => return Ok(true),
                TINFLStatus::NeedsMoreInput if !left.is_empty() => {}
                TINFLStatus::HasMoreOutput if self.plain.len() < self.most => {
                    let longer = self.plain.len().saturating_add(GROWTH).min(self.most);
                    self.plain.resize(longer, 0);
                }
                _ => return Ok(false),
            }
        }
    }
}
