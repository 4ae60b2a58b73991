//! The admin API: what runs, whether it is ready, and reloading, over plain HTTP on an address of its own.
//!
//! Served by the main thread, so it answers when every worker is busy and costs no request anything. [`State`] holds what is shown; the server fills
//! it and spawns [`serve`].

mod certificates;
mod clusters;
mod filters;
mod pages;
mod serve;
mod spare;
mod state;

#[cfg(test)]
mod tests;

pub use serve::serve;
pub use state::{
    CertificateSummary, ClusterSummary, FilterSummary, Readiness, SnapshotSummary, State, UpgradeRequests,
};
