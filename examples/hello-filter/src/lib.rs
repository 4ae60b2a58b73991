//! A first filter.
