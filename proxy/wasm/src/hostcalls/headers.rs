//! Header maps.

use std::cell::{Ref, RefMut};
use std::rc::Rc;

use http::HeaderMap;

use super::{Functions, functions};
use crate::exchange::{Exchange, HttpStream};
use crate::fields;
use crate::grpc::{GrpcEvent, GrpcMetadata};
use crate::host::{CallFailure, HttpCallResponse};
use crate::memory::{Call, Outcome, Span, Stop};
use crate::module::AbiVersion;
use crate::pairs;
use crate::phase::Phase;
use crate::state::VmState;
use crate::status::Status;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    functions!(functions, "env", InCallbacks, {
        "proxy_get_header_map_size" => size[map: u32, size_at: u32];
        "proxy_get_header_map_pairs" => all[map: u32, address_at: u32, size_at: u32];
        "proxy_set_header_map_pairs" => set_all[map: u32, text: u32, size: u32];
        "proxy_get_header_map_value" =>
            value[map: u32, key: u32, length: u32, address_at: u32, size_at: u32];
        "proxy_add_header_map_value" => add[map: u32, key: u32, length: u32, value: u32, size: u32];
        "proxy_replace_header_map_value" => replace[map: u32, key: u32, length: u32, value: u32, size: u32];
        "proxy_remove_header_map_value" => remove[map: u32, key: u32, length: u32];
    });
    Ok(())
}

/// A header map, by the ABI's number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Map {
    RequestHeaders = 0,
    RequestTrailers = 1,
    ResponseHeaders = 2,
    ResponseTrailers = 3,
    GrpcInitialMetadata = 4,
    GrpcTrailingMetadata = 5,
    CallResponseHeaders = 6,
    CallResponseTrailers = 7,
}

impl Map {
    fn from_abi(number: u32) -> Result<Map, Status> {
        Ok(match number {
            0 => Map::RequestHeaders,
            1 => Map::RequestTrailers,
            2 => Map::ResponseHeaders,
            3 => Map::ResponseTrailers,
            4 => Map::GrpcInitialMetadata,
            5 => Map::GrpcTrailingMetadata,
            6 => Map::CallResponseHeaders,
            7 => Map::CallResponseTrailers,
            _ => return Err(Status::BadArgument),
        })
    }
}

/// Who owns the maps while they are read; kept apart from the guest's memory, so that values need no copy.
enum Source {
    Exchange(Rc<dyn Exchange>),
    Call(Result<Rc<HttpCallResponse>, CallFailure>),
    Grpc(Rc<GrpcMetadata>),
    Nothing,
}

impl Source {
    fn of(call: &mut Call<'_>, map: Map) -> Source {
        match map {
            Map::CallResponseHeaders | Map::CallResponseTrailers => {
                call.state().running.call.clone().map_or(Source::Nothing, Source::Call)
            }
            Map::GrpcInitialMetadata | Map::GrpcTrailingMetadata => match (map, &call.state().running.grpc) {
                (Map::GrpcInitialMetadata, Some(GrpcEvent::Initial(metadata)))
                | (Map::GrpcTrailingMetadata, Some(GrpcEvent::Trailing(metadata))) => {
                    Source::Grpc(metadata.clone())
                }
                _ => Source::Nothing,
            },
            _ => {
                let exchange = call.state().stream().and_then(|stream| stream.exchange.upgrade());
                exchange.map_or(Source::Nothing, Source::Exchange)
            }
        }
    }

    /// The messages, if the source is an exchange that nobody writes to.
    fn http(&self) -> Option<Ref<'_, HttpStream>> {
        match self {
            Source::Exchange(exchange) => exchange.http()?.try_borrow().ok(),
            _ => None,
        }
    }

    /// Reads a map; none if it does not exist now.
    fn view<T>(&self, map: Map, read: impl FnOnce(View<'_>) -> T) -> Option<T> {
        let http = self.http();
        let http = http.as_deref();
        let view = match (map, self) {
            (Map::RequestHeaders, _) => View::Request(&http?.request),
            (Map::RequestTrailers, _) => View::Plain(http?.request_trailers.as_ref()?),
            (Map::ResponseHeaders, _) => View::Response(http?.response.as_ref()?),
            (Map::ResponseTrailers, _) => View::Plain(http?.response_trailers.as_ref()?),
            (_, Source::Grpc(metadata)) => match &**metadata {
                GrpcMetadata::Head(head) => View::Response(head),
                GrpcMetadata::Fields(fields) => View::Plain(fields),
            },
            (Map::CallResponseHeaders, Source::Call(Ok(response))) => View::Response(&response.head),
            (Map::CallResponseHeaders, Source::Call(Err(failure))) => View::Failure(failure.reason()),
            (Map::CallResponseTrailers, Source::Call(Ok(response))) => {
                View::Plain(response.trailers.as_ref()?)
            }
            _ => return None,
        };
        Some(read(view))
    }
}

/// A map to be read.
enum View<'a> {
    Request(&'a crate::RequestHead),
    Response(&'a crate::ResponseHead),
    Plain(&'a HeaderMap),
    /// An HTTP call that failed has one pseudo header that says why.
    Failure(&'static str),
}

impl<'a> View<'a> {
    fn find(&self, key: &[u8]) -> Option<&'a [u8]> {
        match self {
            View::Request(head) => head.find(key),
            View::Response(head) => head.find(key),
            View::Plain(map) => fields::find(map, key),
            View::Failure(reason) => (key == b":dispatch_status").then_some(reason.as_bytes()),
        }
    }

    fn serialized_size(&self) -> usize {
        match self {
            View::Request(head) => pairs::size(head.pairs()),
            View::Response(head) => pairs::size(head.pairs()),
            View::Plain(map) => pairs::size(fields::pairs(map)),
            View::Failure(_) => 0,
        }
    }

    fn serialize(&self, out: &mut [u8]) -> Result<(), Status> {
        match self {
            View::Request(head) => pairs::write(out, head.count(), || head.pairs()),
            View::Response(head) => pairs::write(out, head.count(), || head.pairs()),
            View::Plain(map) => pairs::write(out, map.len(), || fields::pairs(map)),
            View::Failure(_) => Ok(()),
        }
    }

    fn count(&self) -> usize {
        match self {
            View::Request(head) => head.count(),
            View::Response(head) => head.count(),
            View::Plain(map) => map.len(),
            View::Failure(_) => 0,
        }
    }
}

/// Bytes of all keys and values.
fn size(call: &mut Call<'_>, map: u32, size_at: u32) -> Outcome {
    let map = Map::from_abi(map)?;
    // As serialized, less the count, the lengths and the NULs.
    let size = Source::of(call, map).view(map, |view| match view.count() {
        0 => 0,
        count => view.serialized_size() - 4 - 10 * count,
    });
    let size = size.ok_or(Status::BadArgument)?;
    call.write_u32(size_at, u32::try_from(size).unwrap_or(u32::MAX))
}

/// A map that does not exist now is as an empty one.
fn all(call: &mut Call<'_>, map: u32, address_at: u32, size_at: u32) -> Outcome {
    let map = Map::from_abi(map)?;
    let source = Source::of(call, map);
    let given = source.view(map, |view| {
        if view.count() == 0 {
            return call.give(&[], address_at, size_at);
        }
        call.give_with(view.serialized_size(), address_at, size_at, |out| view.serialize(out))
    });
    given.unwrap_or_else(|| call.give(&[], address_at, size_at))
}

fn value(call: &mut Call<'_>, map: u32, key: u32, length: u32, address_at: u32, size_at: u32) -> Outcome {
    let map = Map::from_abi(map)?;
    let source = Source::of(call, map);
    let found = source.view(map, |view| {
        let (key, state) = call.read((key, length))?;
        match view.find(key) {
            Some(value) => call.give(value, address_at, size_at),
            None if state.abi == AbiVersion::V0_1_0 => call.give(&[], address_at, size_at),
            None => Err(Status::NotFound.into()),
        }
    });
    match found {
        Some(outcome) => outcome,
        None if call.state().abi == AbiVersion::V0_1_0 => call.give(&[], address_at, size_at),
        // The Rust SDK traps on anything but NotFound.
        None if call.root()?.core.spec.compatibility.strict_maps => Err(Status::BadArgument.into()),
        None => Err(Status::NotFound.into()),
    }
}

fn add(call: &mut Call<'_>, map: u32, key: u32, length: u32, value: u32, size: u32) -> Outcome {
    write(call, map, (key, length), (value, size), false)
}

fn replace(call: &mut Call<'_>, map: u32, key: u32, length: u32, value: u32, size: u32) -> Outcome {
    write(call, map, (key, length), (value, size), true)
}

fn write(call: &mut Call<'_>, map: u32, key: Span, value: Span, replace: bool) -> Outcome {
    let map = Map::from_abi(map)?;
    let target = Target::of(call, map)?;
    let mut http = target.open(map)?;
    let (key, value) = call.read_two(key, value)?;
    let (most, told) = (http.most_written(), http.telling(value));
    match map {
        Map::RequestHeaders => http.request.write((key, told), replace, most)?,
        Map::ResponseHeaders => response(&mut http)?.write((key, told), replace, most)?,
        _ => {
            let most = http.most_head_bytes;
            let write = |map: &mut HeaderMap| fields::write_trailer(map, (key, value), replace, most);
            target.trailers(&mut http, map, write)?;
        }
    }
    Ok(())
}

fn remove(call: &mut Call<'_>, map: u32, key: u32, length: u32) -> Outcome {
    let map = Map::from_abi(map)?;
    let target = Target::of(call, map)?;
    let mut http = target.open(map)?;
    let (key, _) = call.read((key, length))?;
    match map {
        Map::RequestHeaders => http.request.remove(key),
        Map::ResponseHeaders => response(&mut http)?.remove(key),
        _ => target.trailers(&mut http, map, |map| {
            fields::remove(map, key);
            Ok(())
        })?,
    }
    Ok(())
}

fn set_all(call: &mut Call<'_>, map: u32, text: u32, size: u32) -> Outcome {
    let map = Map::from_abi(map)?;
    let target = Target::of(call, map)?;
    let mut http = target.open(map)?;
    let (bytes, _) = call.read((text, size))?;
    let pairs = pairs::decode(bytes)?;
    let (most, written) = (http.most_head_bytes, http.most_written());
    match map {
        Map::RequestHeaders => http.request.replace_all(&pairs, written)?,
        Map::ResponseHeaders => response(&mut http)?.replace_all(&pairs, written)?,
        _ => target.trailers(&mut http, map, |map| fields::replace_trailers(map, &pairs, most))?,
    }
    Ok(())
}

/// A map that may be written now.
struct Target {
    exchange: Rc<dyn Exchange>,
    /// The guest sees the message's end in a body callback, so trailers written there are made.
    makes_trailers: bool,
}

impl Target {
    fn of(call: &mut Call<'_>, map: Map) -> Result<Target, Stop> {
        let state = call.state();
        let read_only = matches!(
            map,
            Map::GrpcInitialMetadata
                | Map::GrpcTrailingMetadata
                | Map::CallResponseHeaders
                | Map::CallResponseTrailers
        );
        // Once the exchange is being logged, it is over.
        if read_only || matches!(state.running.phase, Phase::Log | Phase::Delete) {
            return Err(Status::BadArgument.into());
        }
        let exchange = state.stream().and_then(|stream| stream.exchange.upgrade());
        let exchange = exchange.ok_or(Status::BadArgument)?;
        Ok(Target { exchange, makes_trailers: Target::ending(state) == Some(map) })
    }

    /// The messages, one of which has the map or will be given one.
    fn open(&self, map: Map) -> Result<RefMut<'_, HttpStream>, Stop> {
        // A TCP connection has no maps.
        let http = self.exchange.http().ok_or(Status::BadArgument)?;
        // Borrowed only by an embedder that breaks its contract.
        let mut http = http.try_borrow_mut().map_err(|_| Status::InternalFailure)?;
        match map {
            Map::RequestHeaders => {}
            Map::ResponseHeaders => response(&mut http).map(drop)?,
            _ => self.trailers(&mut http, map, |_| Ok(()))?,
        }
        Ok(http)
    }

    /// Changes trailers. New ones are there only once something is in them.
    fn trailers(
        &self,
        http: &mut HttpStream,
        map: Map,
        change: impl FnOnce(&mut HeaderMap) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let slot = match map {
            Map::RequestTrailers => &mut http.request_trailers,
            _ => &mut http.response_trailers,
        };
        match slot {
            Some(trailers) => change(trailers),
            None if self.makes_trailers => {
                let mut made = HeaderMap::new();
                change(&mut made)?;
                *slot = Some(made).filter(|made| !made.is_empty());
                Ok(())
            }
            None => Err(Status::BadArgument),
        }
    }

    fn ending(state: &VmState) -> Option<Map> {
        match state.running.phase {
            // It is not the end of another stream's message.
            _ if state.acts_on_another() => None,
            Phase::RequestBody if state.running.end_of_stream => Some(Map::RequestTrailers),
            Phase::ResponseBody if state.running.end_of_stream => Some(Map::ResponseTrailers),
            _ => None,
        }
    }
}

fn response(http: &mut HttpStream) -> Result<&mut crate::ResponseHead, Status> {
    http.response.as_mut().ok_or(Status::BadArgument)
}
