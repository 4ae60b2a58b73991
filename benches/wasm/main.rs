//! What a filter costs: its life on one exchange, each hostcall, a fresh VM, a module.
//!
//! `cargo xtask bench` measures; `cargo test -p meshgate-benches --benches` runs everything once, to see that it works.

#![expect(clippy::expect_used, reason = "a bench that cannot do its work has to stop at once")]

mod exchanges;
mod hostcalls;
mod modules;
mod safety;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    exchanges::measure(&mut criterion);
    hostcalls::measure(&mut criterion);
    modules::measure(&mut criterion);
    safety::measure(&mut criterion);
    criterion.final_summary();
}
