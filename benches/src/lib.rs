//! Meshgate's benches.
