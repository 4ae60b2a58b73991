//! The data plane of Meshgate: everything the `meshgate` binary is made of.

pub mod message;
pub mod upstream;
