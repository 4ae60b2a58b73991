//! `declare_property`: how the properties that a plugin sets are to be kept.

use std::cell::RefCell;
use std::collections::HashMap;

use prost::Message;

use crate::status::Status;

/// Names a plugin may declare.
const MAX: usize = 256;
/// Bytes of a name.
const MAX_NAME: usize = 1_024;

/// What one plugin declared, by the property's path.
#[derive(Default)]
pub(crate) struct Declarations(RefCell<HashMap<Box<[u8]>, Declared>>);

/// How a property is to be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Declared {
    /// It can be set once.
    pub(crate) read_only: bool,
    /// It lasts as long as the downstream connection, not just the exchange.
    pub(crate) of_connection: bool,
}

/// Envoy's `DeclarePropertyArguments`.
#[derive(Clone, PartialEq, Message)]
struct Arguments {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "2")]
    read_only: bool,
    #[prost(enumeration = "Type", tag = "3")]
    r#type: i32,
    #[prost(bytes = "vec", tag = "4")]
    schema: Vec<u8>,
    #[prost(enumeration = "Span", tag = "5")]
    span: i32,
}

/// What the value is. It is handed out as it was set, whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Type {
    Bytes = 0,
    String = 1,
    FlatBuffers = 2,
    Protobuf = 3,
}

/// How long the value lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Span {
    FilterChain = 0,
    DownstreamRequest = 1,
    DownstreamConnection = 2,
}

impl Declarations {
    /// A name that was declared before keeps what was said then: BadArgument.
    pub(crate) fn declare(&self, argument: &[u8]) -> Result<(), Status> {
        let arguments = Arguments::decode(argument).map_err(|_| Status::BadArgument)?;
        let declared = Declared {
            read_only: arguments.read_only,
            of_connection: arguments.span == Span::DownstreamConnection as i32,
        };
        let name = arguments.name.into_bytes().into_boxed_slice();
        let mut known = self.0.borrow_mut();
        if name.is_empty() || name.len() > MAX_NAME || known.contains_key(&name) {
            return Err(Status::BadArgument);
        }
        if known.len() >= MAX {
            return Err(Status::InternalFailure);
        }
        known.insert(name, declared);
        Ok(())
    }

    /// How the property at this path is to be kept.
    #[inline]
    pub(crate) fn of(&self, path: &[u8]) -> Declared {
        let known = self.0.borrow();
        if known.is_empty() { Declared::default() } else { known.get(path).copied().unwrap_or_default() }
    }
}
