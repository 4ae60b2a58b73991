//! What happened on a listener, per worker. Written by the worker alone, read by anybody.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one listener on one worker.
#[derive(Debug, Default)]
pub struct ListenerStats {
    accepted: AtomicU64,
    active: AtomicU64,
    rejected: AtomicU64,
    crowded: AtomicU64,
    timed_out: AtomicU64,
    malformed: AtomicU64,
    flooded: AtomicU64,
    unproxied: AtomicU64,
    drained: AtomicU64,
    accept_errors: AtomicU64,
    handshakes: AtomicU64,
    handshakes_resumed: AtomicU64,
    handshakes_failed: AtomicU64,
    handshakes_timed_out: AtomicU64,
    requests: AtomicU64,
}

impl ListenerStats {
    /// Connections accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    /// Connections closed at once because there were too many.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Connections closed because their client's address had too many.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Connections closed because the client was too slow with a head or in reading; idle ones do not count.
    pub fn timed_out(&self) -> u64 {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Connections closed because what came was not HTTP or exceeded a limit.
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Connections closed because of too many HTTP/2 frames that carry nothing.
    pub fn flooded(&self) -> u64 {
        self.flooded.load(Ordering::Relaxed)
    }

    /// Connections closed for having no PROXY protocol header, or none that is believed.
    pub fn unproxied(&self) -> u64 {
        self.unproxied.load(Ordering::Relaxed)
    }

    /// Connections told to leave: the listener drains, or its terms have changed.
    pub fn drained(&self) -> u64 {
        self.drained.load(Ordering::Relaxed)
    }

    /// Times that accepting failed for want of a resource.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Ordering::Relaxed)
    }

    /// TLS handshakes that came to their end, those of sessions taken up again included.
    pub fn handshakes(&self) -> u64 {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// TLS sessions taken up again.
    pub fn handshakes_resumed(&self) -> u64 {
        self.handshakes_resumed.load(Ordering::Relaxed)
    }

    /// TLS handshakes that failed: what came was no TLS, or nothing was agreed upon, or a certificate was not good.
    pub fn handshakes_failed(&self) -> u64 {
        self.handshakes_failed.load(Ordering::Relaxed)
    }

    /// TLS handshakes given up for taking too long, or for being the oldest of too many.
    pub fn handshakes_timed_out(&self) -> u64 {
        self.handshakes_timed_out.load(Ordering::Relaxed)
    }

    /// Requests whose head arrived.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn count_accepted(&self) {
        add(&self.accepted, 1);
        add(&self.active, 1);
    }

    pub(super) fn count_closed(&self) {
        add(&self.active, u64::MAX);
    }

    pub(super) fn count_rejected(&self) {
        add(&self.rejected, 1);
    }

    pub(super) fn count_crowded(&self) {
        add(&self.crowded, 1);
    }

    pub(super) fn count_timed_out(&self) {
        add(&self.timed_out, 1);
    }

    pub(super) fn count_malformed(&self) {
        add(&self.malformed, 1);
    }

    pub(super) fn count_flooded(&self) {
        add(&self.flooded, 1);
    }

    pub(super) fn count_unproxied(&self) {
        add(&self.unproxied, 1);
    }

    pub(super) fn count_drained(&self) {
        add(&self.drained, 1);
    }

    pub(super) fn count_accept_error(&self) {
        add(&self.accept_errors, 1);
    }

    pub(super) fn count_handshake(&self, resumed: bool) {
        add(&self.handshakes, 1);
        add(&self.handshakes_resumed, resumed.into());
    }

    pub(super) fn count_handshake_failed(&self) {
        add(&self.handshakes_failed, 1);
    }

    pub(super) fn count_handshake_timed_out(&self) {
        add(&self.handshakes_timed_out, 1);
    }

    pub(super) fn count_request(&self) {
        add(&self.requests, 1);
    }
}

/// There is one writer, so a plain load and store do: no locked instruction on a request's path.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}
