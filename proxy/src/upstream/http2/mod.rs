//! HTTP/2 to endpoints, through TLS, or in cleartext and with prior knowledge: a few connections per endpoint and worker, each with
//! many requests at once.
//!
//! It stands on the `h2` crate alone, without hyper around it: what is asked of it here (how many streams the peer allows
//! now, whether a lost request was begun with, that a cancelled body is no whole body, that a stream whose upload waits for
//! the peer can be reset) gets lost in hyper's client.

mod body;
mod change;
mod connection;
mod connections;
mod exchange;
mod upload;

pub(super) use body::Http2Body;
pub(super) use change::Stream;
pub(super) use connections::Connections;
pub(super) use exchange::{Lease, send};

#[cfg(test)]
mod tests;
