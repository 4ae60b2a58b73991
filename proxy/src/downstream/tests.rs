//! A listener and its clients on real sockets.
