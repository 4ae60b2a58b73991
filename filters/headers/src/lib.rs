//! Adds, sets and removes fields of requests and responses.
