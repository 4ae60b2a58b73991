//! Counts requests and measures their latency.
