//! What a callback's return value asks for, and which callbacks a module has.

/// What a headers callback asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadersAction {
    /// Go on with the next filter.
    Continue,
    /// Hold the headers, but go on delivering the body to this filter. Only for plugins that ask for it
    /// ([`crate::Compatibility::stop_iteration`]); otherwise it arrives as [`HeadersAction::StopAllWatermark`].
    StopIteration,
    /// Deliver nothing more to this filter until it is resumed; buffer what comes, up to the body limit.
    StopAllBuffer,
    /// Deliver nothing more to this filter until it is resumed; push back on the sender.
    StopAllWatermark,
}

/// What a body callback asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyAction {
    /// Pass on what is in the buffer and go on.
    Continue,
    /// Keep what is in the buffer, up to the body limit, and call again with more.
    Buffer,
    /// Keep what is in the buffer and push back on the sender.
    Watermark,
    /// Drop what is in the buffer and call again with more.
    Drop,
}

/// What a trailers callback asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrailersAction {
    /// Go on.
    Continue,
    /// Hold the trailers, and with them the message's end, until resumed.
    Pause,
}

impl HeadersAction {
    /// The return value in the ABI's numbers; numbers it does not know stop everything.
    pub(crate) fn from_abi(number: u32, stop_iteration: bool) -> HeadersAction {
        match number {
            0 | 2 => HeadersAction::Continue,
            1 if stop_iteration => HeadersAction::StopIteration,
            3 => HeadersAction::StopAllBuffer,
            _ => HeadersAction::StopAllWatermark,
        }
    }
}

impl BodyAction {
    /// The return value in the ABI's numbers; numbers it does not know drop the chunk.
    pub(crate) fn from_abi(number: u32) -> BodyAction {
        match number {
            0 => BodyAction::Continue,
            1 => BodyAction::Buffer,
            2 => BodyAction::Watermark,
            _ => BodyAction::Drop,
        }
    }
}

impl TrailersAction {
    /// The return value in the ABI's numbers.
    pub(crate) fn from_abi(number: u32) -> TrailersAction {
        if number == 0 { TrailersAction::Continue } else { TrailersAction::Pause }
    }
}

/// What a callback of a TCP connection asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpAction {
    /// Pass on what is in the buffer and go on.
    Continue,
    /// Keep what is in the buffer and call again with more, until resumed.
    Pause,
}

impl TcpAction {
    /// The return value in the ABI's numbers.
    pub(crate) fn from_abi(number: u32) -> TcpAction {
        if number == 0 { TcpAction::Continue } else { TcpAction::Pause }
    }
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PeerType {
    /// Nobody knows.
    Unknown = 0,
    /// The proxy.
    Local = 1,
    /// Whoever is at the other end of it.
    Remote = 2,
}

/// A set of stream callbacks. A callback that a module does not have need not be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Callbacks(u16);

impl Callbacks {
    /// `proxy_on_request_headers`
    pub const REQUEST_HEADERS: Callbacks = Callbacks(1);
    /// `proxy_on_request_body`
    pub const REQUEST_BODY: Callbacks = Callbacks(1 << 1);
    /// `proxy_on_request_trailers`
    pub const REQUEST_TRAILERS: Callbacks = Callbacks(1 << 2);
    /// `proxy_on_response_headers`
    pub const RESPONSE_HEADERS: Callbacks = Callbacks(1 << 3);
    /// `proxy_on_response_body`
    pub const RESPONSE_BODY: Callbacks = Callbacks(1 << 4);
    /// `proxy_on_response_trailers`
    pub const RESPONSE_TRAILERS: Callbacks = Callbacks(1 << 5);
    /// `proxy_on_done`
    pub const DONE: Callbacks = Callbacks(1 << 6);
    /// `proxy_on_log`: the filter wants to see every exchange's end, so it needs a stream context even if no
    /// other callback was due.
    pub const LOG: Callbacks = Callbacks(1 << 7);
    /// `proxy_on_foreign_function`
    pub const FOREIGN_FUNCTION: Callbacks = Callbacks(1 << 8);
    /// `proxy_on_new_connection`
    pub const NEW_CONNECTION: Callbacks = Callbacks(1 << 9);
    /// `proxy_on_downstream_data`
    pub const DOWNSTREAM_DATA: Callbacks = Callbacks(1 << 10);
    /// `proxy_on_downstream_connection_close`
    pub const DOWNSTREAM_CLOSE: Callbacks = Callbacks(1 << 11);
    /// `proxy_on_upstream_data`
    pub const UPSTREAM_DATA: Callbacks = Callbacks(1 << 12);
    /// `proxy_on_upstream_connection_close`
    pub const UPSTREAM_CLOSE: Callbacks = Callbacks(1 << 13);
    /// The callbacks of a TCP connection. A module with none of them has no business on one.
    pub const TCP: Callbacks = Callbacks(0b1_1111 << 9);
    /// All that only HTTP exchanges have.
    pub const HTTP: Callbacks = Callbacks(0b11_1111);
    /// Every callback of a stream.
    pub const ALL: Callbacks = Callbacks((1 << 14) - 1);

    /// Whether all of `other` are in this set.
    pub const fn contains(self, other: Callbacks) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is in this set.
    pub const fn intersects(self, other: Callbacks) -> bool {
        self.0 & other.0 != 0
    }

    /// The callbacks in either set.
    #[must_use]
    pub const fn union(self, other: Callbacks) -> Callbacks {
        Callbacks(self.0 | other.0)
    }

    /// The callbacks in both sets.
    #[must_use]
    pub const fn intersection(self, other: Callbacks) -> Callbacks {
        Callbacks(self.0 & other.0)
    }

    /// The callbacks of this set that are not in the other.
    #[must_use]
    pub const fn without(self, other: Callbacks) -> Callbacks {
        Callbacks(self.0 & !other.0)
    }

    /// The set of one, by its name without `proxy_on_`, as manifests write it (`request_headers`).
    pub fn named(name: &str) -> Option<Callbacks> {
        Some(match name {
            "request_headers" => Callbacks::REQUEST_HEADERS,
            "request_body" => Callbacks::REQUEST_BODY,
            "request_trailers" => Callbacks::REQUEST_TRAILERS,
            "response_headers" => Callbacks::RESPONSE_HEADERS,
            "response_body" => Callbacks::RESPONSE_BODY,
            "response_trailers" => Callbacks::RESPONSE_TRAILERS,
            "done" => Callbacks::DONE,
            "log" => Callbacks::LOG,
            "foreign_function" => Callbacks::FOREIGN_FUNCTION,
            "new_connection" => Callbacks::NEW_CONNECTION,
            "downstream_data" => Callbacks::DOWNSTREAM_DATA,
            "downstream_connection_close" => Callbacks::DOWNSTREAM_CLOSE,
            "upstream_data" => Callbacks::UPSTREAM_DATA,
            "upstream_connection_close" => Callbacks::UPSTREAM_CLOSE,
            _ => return None,
        })
    }
}
