//! A response's body, compressed on its way to the client because a filter decided so. It streams: what has arrived is sent
//! on as soon as nothing more is there at once.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, HeaderValue,
};
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame};
use meshgate_wasm::{Permit, ResponseHead};
use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output, create_comp_flags_from_zip_params,
};

use crate::filter::Encoding;
use crate::message::{BodyError, BodyFault, BodyReason};

/// Without time, name and flags, from an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Bytes that are compressed before what came of it is passed on.
const PIECE: usize = 16 << 10;
/// Pieces after which other exchanges of the worker have their turn, if nothing came of them.
const PIECES: usize = 4;
/// Checksums of a body that is not the one that is sent.
const CHECKSUMS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// Whether a response can be encoded: one that is a whole and is not encoded already.
pub(super) fn fits(head: &ResponseHead) -> bool {
    let whole = !matches!(
        head.status,
        StatusCode::NO_CONTENT
            | StatusCode::RESET_CONTENT
            | StatusCode::PARTIAL_CONTENT
            | StatusCode::NOT_MODIFIED
    );
    let fields = &head.headers;
    whole && !fields.contains_key(CONTENT_ENCODING) && !fields.contains_key(CONTENT_RANGE)
}

/// Makes the head that of the encoded response: it is another representation (RFC 9110, section 8.8.3.3).
pub(super) fn change(fields: &mut HeaderMap) {
    fields.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    fields.remove(CONTENT_LENGTH);
    fields.remove(ACCEPT_RANGES);
    for name in CHECKSUMS {
        fields.remove(name);
    }
    let weak = fields.get(ETAG).and_then(|tag| {
        let strong = Some(tag.as_bytes()).filter(|tag| tag.starts_with(b"\""))?;
        HeaderValue::from_bytes(&[b"W/", strong].concat()).ok()
    });
    if let Some(weak) = weak {
        fields.insert(ETAG, weak);
    }
}

/// Compresses one body.
pub(super) struct Encoder {
    compressor: Box<CompressorOxide>,
    checksum: crc32fast::Hasher,
    /// Bytes before they were compressed, modulo 2^32.
    length: u32,
    /// What has arrived and was not compressed yet.
    left: Bytes,
    /// Bytes went in that may not have come out.
    unflushed: bool,
    phase: Phase,
    _permit: Permit,
}

enum Phase {
    Beginning,
    Running,
    /// All is out but the trailers.
    Ended(Option<HeaderMap>),
}

impl Encoder {
    pub(super) fn new(encoding: Encoding) -> Encoder {
        // A negative window: no frame of zlib's around it.
        let flags = create_comp_flags_from_zip_params(encoding.level.into(), -15, 0);
        Encoder {
            compressor: Box::new(CompressorOxide::new(flags)),
            checksum: crc32fast::Hasher::new(),
            length: 0,
            left: Bytes::new(),
            unflushed: false,
            phase: Phase::Beginning,
            _permit: encoding.permit,
        }
    }

    /// Whether everything has come out.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Ended(None))
    }

    /// The next frame of the encoded body.
    pub(super) fn poll_frame<B>(
        &mut self,
        body: &mut B,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>
    where
        B: Body<Data = Bytes, Error = BodyError> + Unpin,
    {
        if let Phase::Ended(trailers) = &mut self.phase {
            return Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        for _ in 0..PIECES {
            let mut out = Vec::new();
            if self.left.is_empty() {
                let frame = match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Pending if self.unflushed => {
                        self.compress(&[], TDEFLFlush::Sync, &mut out)?;
                        self.unflushed = false;
                        return Poll::Ready(Some(Ok(Frame::data(out.into()))));
                    }
                    frame => ready!(frame).transpose()?,
                };
                match frame.map(Frame::into_data) {
                    Some(Ok(chunk)) => self.left = chunk,
                    Some(Err(frame)) => return Poll::Ready(Some(self.end(frame.into_trailers().ok(), out))),
                    None => return Poll::Ready(Some(self.end(None, out))),
                }
            }
            let piece = self.left.split_to(self.left.len().min(PIECE));
            self.compress(&piece, TDEFLFlush::None, &mut out)?;
            self.unflushed |= !piece.is_empty();
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn end(&mut self, trailers: Option<HeaderMap>, mut out: Vec<u8>) -> Result<Frame<Bytes>, BodyError> {
        self.compress(&[], TDEFLFlush::Finish, &mut out)?;
        out.extend_from_slice(&std::mem::take(&mut self.checksum).finalize().to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        self.phase = Phase::Ended(trailers);
        Ok(Frame::data(out.into()))
    }

    fn compress(&mut self, piece: &[u8], flush: TDEFLFlush, out: &mut Vec<u8>) -> Result<(), BodyError> {
        if matches!(self.phase, Phase::Beginning) {
            out.extend_from_slice(&HEADER);
            self.phase = Phase::Running;
        }
        self.checksum.update(piece);
        // The length of what is at hand fits by far.
        self.length = self.length.wrapping_add(piece.len() as u32);
        let (status, _) = compress_to_output(&mut self.compressor, piece, flush, |bytes| {
            out.extend_from_slice(bytes);
            true
        });
        match status {
            TDEFLStatus::Okay | TDEFLStatus::Done => Ok(()),
            TDEFLStatus::BadParam | TDEFLStatus::PutBufFailed => {
                Err(BodyError::new(BodyFault::Internal, BodyReason::Aborted, "cannot be compressed"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn the_head_is_that_of_another_representation() {
        let mut fields = headers(&[
            ("etag", "\"a\""),
            ("content-length", "9"),
            ("accept-ranges", "bytes"),
            ("repr-digest", "sha-256=:x:"),
            ("x-own", "1"),
        ]);
        change(&mut fields);
        let expected = headers(&[("etag", "W/\"a\""), ("x-own", "1"), ("content-encoding", "gzip")]);
        assert_eq!(fields, expected);
        let mut weak = headers(&[("etag", "W/\"a\"")]);
        change(&mut weak);
        assert_eq!(weak[ETAG], "W/\"a\"");
    }

    #[test]
    fn parts_and_what_is_encoded_stay_as_they_are() {
        let fits = |status, fields: &[(&'static str, &'static str)]| {
            fits(&ResponseHead { status, headers: headers(fields) })
        };
        assert!(fits(StatusCode::OK, &[]) && fits(StatusCode::NOT_FOUND, &[]));
        for status in [StatusCode::NO_CONTENT, StatusCode::PARTIAL_CONTENT, StatusCode::NOT_MODIFIED] {
            assert!(!fits(status, &[]));
        }
        assert!(!fits(StatusCode::OK, &[("content-encoding", "br")]));
        assert!(!fits(StatusCode::OK, &[("content-range", "bytes 0-1/2")]));
    }
}
