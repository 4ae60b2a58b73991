//! Between the contexts of the ABI and the traits that filters implement: a root context is a [`Root`], a stream context a
//! [`Stream`] (of HTTP) or a [`Session`] (of TCP).
//!
//! In a module the `proxy-wasm` crate makes them and calls them (`contexts.rs`), in tests the simulated host does.

pub(crate) mod calls;
#[cfg(target_arch = "wasm32")]
mod contexts;
pub(crate) mod current;
pub(crate) mod grpc_streams;
pub(crate) mod half;
mod ids;
pub(crate) mod kind;
mod plugin;
mod session;
mod slot;
mod stream;
pub(crate) mod task;
pub(crate) mod timers;

#[cfg(target_arch = "wasm32")]
pub use self::contexts::{start_both, start_http, start_tcp};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use self::kind::{Both, Http, Kind, Tcp};
pub(crate) use self::plugin::Root;
pub(crate) use self::session::Session;
pub(crate) use self::stream::Stream;

/// Makes a callback of one way of an exchange or a connection: `$call` is what it runs. A callback without `.await` runs where
/// it stands.
macro_rules! run {
    ($subject:ident, $direction:expr, $name:literal, |$filter:ident, $of:ident| $call:expr) => {
        match &$subject.filter {
            None => ::std::task::Poll::Ready(Err($crate::Stop::failed("the filter is not configured"))),
            Some(filter) if const { $crate::runtime::task::has(F::AWAITS, $name) } => {
                let (filter, of) = (::std::rc::Rc::clone(filter), ::std::rc::Rc::clone($subject));
                let wakeup = $crate::runtime::task::Wakeup {
                    plugin: $subject.plugin,
                    context: $subject.context,
                    direction: $direction,
                };
                $subject.half($direction).start($crate::runtime::task::Task::new(wakeup, async move {
                    let ($filter, $of) = (&*filter, &*of);
                    $call.await
                }))
            }
            Some(filter) => {
                let ($filter, $of) = (&**filter, &**$subject);
                ::std::task::Poll::Ready($crate::runtime::task::now($call))
            }
        }
    };
}
use run;
