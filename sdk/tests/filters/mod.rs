//! The filters that the tests run.

pub(crate) mod bodies;
pub(crate) mod calls;
pub(crate) mod ticks;
