//! The harness of Meshgate's end-to-end tests.
