//! HTTP calls of filters to clusters.
