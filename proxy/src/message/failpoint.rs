//! Where a test has the proxy fail as a defect of its own would: with the environment variable `MESHGATE_PANIC_AT=/path`, a request
//! for that path is a panic. A release build has none of this.

/// A request for this path has come through its filters.
#[cfg(debug_assertions)]
pub fn reach(path: &str) {
    use std::sync::OnceLock;
    static PATH: OnceLock<Option<String>> = OnceLock::new();
    let wanted = PATH.get_or_init(|| std::env::var("MESHGATE_PANIC_AT").ok());
    if wanted.as_deref() == Some(path) {
        #[expect(clippy::panic, reason = "it is what this is for")]
        {
            panic!("asked for by MESHGATE_PANIC_AT");
        }
    }
}

/// A request for this path has come through its filters.
#[cfg(not(debug_assertions))]
pub fn reach(_: &str) {}
