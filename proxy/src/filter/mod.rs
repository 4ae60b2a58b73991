//! The filters of an exchange and of a TCP session: the chain's order, pause and resume, local responses, and the
//! `meshgate.*` extensions. Used by `exchange` and `session`, which decide what to do with the outcome, and by `snapshot`,
//! which builds chains.

mod attempts;
mod body;
mod chain;
mod encoding;
mod extensions;
mod failure;
mod filter_state;
pub mod guest_log;
mod log_entry;
mod run;
mod session;
mod spans;
mod stream;
mod verify;

pub use attempts::{Judge, Retry};
pub use body::{FilteredBody, First};
pub use chain::{Chain, Filter};
pub use encoding::Encoding;
pub use extensions::foreign_function;
pub use failure::{FilterFailure, FilterFault, Interrupted, Stop, vm_details};
pub use run::Run;
pub use session::{Flow, Session, SessionParts, Side};
pub use stream::{Decision, Extras, Mirror, Stream, StreamParts, Target, Targets, TimeLimit};
