//! What the benches run on: guests that do one thing only, and a worker's surroundings without a proxy.

#![expect(clippy::expect_used, reason = "a bench whose own set-up fails has to stop at once")]

mod guests;
mod surroundings;

pub use guests::{ABI, CALLS, Guest, no_op};
pub use surroundings::{Bystander, Surroundings, exchange};
