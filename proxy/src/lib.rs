//! The data plane of Meshgate: everything the `meshgate` binary is made of.

pub mod admin;
pub mod downstream;
pub mod drain;
pub mod exchange;
pub mod files;
pub mod filter;
pub mod message;
pub mod modules;
pub mod overload;
pub mod reload;
pub mod server;
pub mod session;
pub mod snapshot;
pub mod socket;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod worker;
