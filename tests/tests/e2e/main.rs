//! The end-to-end tests: a real `meshgate`, real sockets, one topic per module. `cargo xtask test` builds what they need.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "everything in this crate is a test or a part of one"
)]

mod access_log; // what is written about each request, in both formats
mod admin; // the admin API: its endpoints, and what it refuses
mod admission; // the standard filter `admission`
mod authz; // the standard filter `authz`
mod balancing; // load balancers and outlier detection
mod balancing_changed; // load balancers, outlier detection and slow start that a reload changes
mod bodies; // streaming with back-pressure, early answers, bodies broken off
mod capabilities; // every capability that the documents list has its tests
mod check; // `meshgate check`: exit codes, and the messages for bad files, compared with golden files
mod compatibility; // where hosts differ: the switches of a filter, and what filters made for other hosts ask for
mod compress; // the standard filter `compress`, and the host compressing
mod conformance; // the host's functions and callbacks, by the sections of the Proxy-Wasm specification
mod cors; // the standard filter `cors`
mod costs; // what one peer may cost: slow bodies, floods of frames, streams; how long gRPC clients wait
mod credentials; // the standard filters `api-key` and `basic`
mod discovery; // endpoints from DNS and from files, subsets, localities
mod drain; // SIGTERM, once and twice
mod envoy; // the same filters in Envoy, side by side, where it is installed
mod examples; // every example's README, command by command
mod ext_authz; // the standard filter `ext-authz`
mod extended_connect; // WebSocket and others over HTTP/2
mod extended_connect_upstream; // the same to endpoints that speak HTTP/2
mod failures; // each way an exchange can fail: its status, its flag, and who notices
mod fault; // the standard filter `fault`
mod faults; // what goes wrong around the process: panics, full disks, clocks, bad links, no time; and a soak
mod filters_swapped; // each standard filter comes, changes and goes under load
mod forwarded; // proxies in front that are believed: the client they name, and where it shows
mod forwarding; // fields that a proxy drops, adds or rewrites
mod global_rate_limit; // the standard filter `global-rate-limit`
mod grpc; // HTTP/2 to endpoints, gRPC through the proxy and from filters
mod harness; // the harness itself
mod headers; // the standard filter `headers`
mod health; // health checks: what is asked, how often, and who gets requests
mod hostile; // filters that loop, trap, grow or lie, in every callback
mod hostile_guests; // a guest for each kind of attack, alone and beside a filter under load
mod ipv6; // listeners, clients and endpoints of IPv6
mod isolation; // an instance of a filter for each exchange, and what sharing one costs
mod jwt; // the standard filter `jwt`
mod kit; // `meshgate filter …`: what an author of filters has
mod large_bodies; // bodies of 1 MiB in both directions under full load
mod limits; // the limits of clusters
mod malformed; // bytes that are not HTTP
mod matrix; // every protocol, with and without TLS, while the proxy reloads, rotates certificates and drains
mod mirrors; // copies of requests for other clusters
mod mtls; // clients' certificates: who is let in, and what is said of them
mod one_of_four; // a bad endpoint among good ones: what it costs, what it gets, and when it is back
mod opaque; // one port for HTTP and for what does not speak it
mod overload; // a process that is short of memory
mod passthrough; // TLS that is passed through, by server name
mod proxy_protocol; // connections that say for whom they were made, from clients and to endpoints
mod proxying; // plain proxying over HTTP/1.1 and HTTP/2
mod rate_limit; // the standard filter `rate-limit`
mod reload; // changing files under a running proxy, one at a time
mod reload_under_load; // two hundred reloads under load, no request lost or mixed
mod retry; // `meshgate.attempts` and the standard filter `retry`
mod rotation; // certificates that are renewed all the time under new handshakes
mod route_actions; // what routes do beside sending requests to a cluster
mod routing; // the standard filter `routing`: which route a request takes
mod safety; // limits, their counters, the quarantine, what a filter may do, ten thousand reloads
mod services; // filters that run without requests
mod systemd; // sockets that are bound already, and what systemd hears of the process
mod tcp; // TCP listeners: bytes, ends, resets, limits, reload and drain
mod tcp_filters; // filters on TCP listeners: each callback, pause and resume, closing, failing
mod telemetry; // the standard filter `telemetry`, and the proxy's own metrics
mod tls; // TLS listeners: which certificate, which version, which clients
mod tls_upstream; // TLS to endpoints: whom the proxy believes, and what it shows
mod unix_sockets; // listeners and endpoints on Unix sockets
mod upgrade; // another binary in the place of the running one
mod upgrades; // connections that change their protocol: WebSocket and others
mod wasm; // the life of a filter: phases, bodies, calls, local responses, ticks
