//! The clock.

use std::time::{SystemTime, UNIX_EPOCH};

use super::matrix::{ALL, Row, check, row};
use super::script::Arg::{Long, N};
use super::script::{INVALID_MEMORY, OK};
use super::world::last;

pub(super) const ROWS: &[Row] = &[
    row("proxy_get_current_time_nanoseconds", &[Long], &[(ALL, OK)]),
    row("proxy_get_current_time_nanoseconds", &[N(0xffff_fff9)], &[(ALL, INVALID_MEMORY)]),
];

#[tokio::test]
async fn in_every_callback() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let before = now();
    let reports = check(ROWS).await;
    let mut times = vec![before];
    for callback in ["configure", "tick", "request_headers", "response_headers", "log", "root_done"] {
        times.push(last(&reports, callback).value(0).as_u64().unwrap());
    }
    times.push(now());
    assert!(times.is_sorted(), "{times:?}");
}
