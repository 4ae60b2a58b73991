//! Decides the route of a request.
