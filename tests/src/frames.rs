//! HTTP/2 frame by frame: for what no client of a library would send, and to see exactly what comes.

use crate::socket::Socket;

/// Types of frames (RFC 9113 section 6).
pub mod kind {
    /// Content.
    pub const DATA: u8 = 0;
    /// A head, or trailers.
    pub const HEADERS: u8 = 1;
    /// Of no meaning any more.
    pub const PRIORITY: u8 = 2;
    /// The end of a stream.
    pub const RST_STREAM: u8 = 3;
    /// Parameters of the connection.
    pub const SETTINGS: u8 = 4;
    /// A question whether somebody is there.
    pub const PING: u8 = 6;
    /// The end of the connection.
    pub const GOAWAY: u8 = 7;
    /// Room for content.
    pub const WINDOW_UPDATE: u8 = 8;
}

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The last frame of its direction on its stream; of SETTINGS and PING: an answer.
pub const END: u8 = 1;
/// A head that needs no other frame to be whole.
pub const END_HEADERS: u8 = 4;

/// A frame as it goes over the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

/// Header fields in HPACK, each spelled out; names and values are shorter than 127 bytes.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("a short text")], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Of GOAWAY: the last stream that is served.
    pub fn last_stream(&self) -> u32 {
        assert_eq!(self.kind, kind::GOAWAY, "{self:?}");
        u32::from_be_bytes(*self.payload.first_chunk().expect("a stream"))
    }
}

/// A client that speaks in frames.
pub struct Frames {
    socket: Socket,
}

impl Frames {
    /// Connects, and says what comes first.
    pub async fn connect(address: std::net::SocketAddr) -> Frames {
        let mut socket = Socket::connect(address).await;
        socket.write([PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat()).await;
        Frames { socket }
    }

    /// Sends a frame.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.socket.write(frame(kind, flags, stream, payload)).await;
    }

    /// Asks with these fields; a request without a body has ended then.
    pub async fn ask(&mut self, stream: u32, ended: bool, head: &[(&str, &str)]) {
        let flags = END_HEADERS | if ended { END } else { 0 };
        self.send(kind::HEADERS, flags, stream, &fields(head)).await;
    }

    /// The next frame, whatever it is.
    pub async fn next(&mut self) -> Frame {
        let head = self.socket.read(9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.socket.read(usize::try_from(length).expect("a length")).await;
        Frame { kind: head[3], flags: head[4], stream, payload }
    }

    /// The next frame of one of these types. SETTINGS are answered on the way, other frames passed over.
    pub async fn next_of(&mut self, kinds: &[u8]) -> Frame {
        loop {
            let frame = self.next().await;
            if frame.kind == kind::SETTINGS && frame.flags & END == 0 {
                self.send(kind::SETTINGS, END, 0, &[]).await;
            }
            if kinds.contains(&frame.kind) {
                return frame;
            }
        }
    }

    /// The connection ends, and nothing more comes.
    pub async fn ended(&mut self) {
        assert_eq!(self.socket.end().await.bytes, b"", "nothing more was to come");
    }
}
