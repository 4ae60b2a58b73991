//! Where a test has the proxy fail as a defect of its own would: with the environment variable `MESHGATE_PANIC_AT`, a place of this
//! name is a panic. A release build has none of this.

/// The path of a request that has come through its filters, or `NAME on worker INDEX` where a worker begins to serve a listener.
#[cfg(debug_assertions)]
pub fn reach(place: &str) {
    use std::sync::OnceLock;
    static PLACE: OnceLock<Option<String>> = OnceLock::new();
    let wanted = PLACE.get_or_init(|| std::env::var("MESHGATE_PANIC_AT").ok());
    if wanted.as_deref() == Some(place) {
        #[expect(clippy::panic, reason = "it is what this is for")]
        {
            panic!("asked for by MESHGATE_PANIC_AT");
        }
    }
}

/// The path of a request that has come through its filters, or `NAME on worker INDEX` where a worker begins to serve a listener.
#[cfg(not(debug_assertions))]
pub fn reach(_: &str) {}
