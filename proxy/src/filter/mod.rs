//! The filters of an exchange: the chain's order, pause and resume, local responses, and the `meshgate.*`
//! extensions. Used by `exchange`, which decides what to do with the outcome, and by `snapshot`, which builds chains.

mod body;
mod chain;
mod extensions;
mod failure;
pub mod guest_log;
mod run;
mod stream;

pub use body::{FilteredBody, First};
pub use chain::{Chain, Filter};
pub use extensions::foreign_function;
pub use failure::{FilterFailure, FilterFault, Stop};
pub use run::Run;
pub use stream::{ClusterNames, Decision, Stream, StreamParts};
