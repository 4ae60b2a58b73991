//! WASI, under both of its names.

use super::matrix::{ALL, Row, check, row};
use super::script::Arg::{self, Hex, Long, N, Parts, T, Word};
use super::script::{OK, Report, Script, call};
use super::world::{World, last};

const BAD_FILE: u32 = 8;
const FAULT: u32 = 21;
const NO_ENTRY: u32 = 44;
const NOT_OFFERED: u32 = 52;
const NOT_A_DIRECTORY: u32 = 20;
const NOT_SUPPORTED: u32 = 58;

const BUFFER: Arg = Hex("0000000000000000000000000000000000000000000000000000000000000000");

/// The same calls in either module of imports.
macro_rules! rows {
    ($($name:literal, $arguments:expr, $status:expr;)*) => {
        pub(super) const ROWS: &[Row] = &[$(row($name, $arguments, &[(ALL, $status)])),*];
        pub(super) const UNSTABLE: &[Row] = &[$(row(concat!("unstable.", $name), $arguments, &[(ALL, $status)])),*];
    };
}

rows! {
    "args_sizes_get", &[Word, Word], OK;
    "args_get", &[Word, Word], OK;
    "environ_sizes_get", &[Word, Word], OK;
    "environ_get", &[Word, Word], OK;
    "clock_time_get", &[N(0), N(0), Long], OK;
    "clock_time_get", &[N(1), N(0), Long], OK;
    "clock_time_get", &[N(2), N(0), Long], NOT_SUPPORTED;
    "clock_res_get", &[N(0), Long], OK;
    "clock_res_get", &[N(1), Long], OK;
    "clock_res_get", &[N(9), Long], NOT_SUPPORTED;
    "random_get", &[BUFFER], OK;
    "random_get", &[N(0), N(0)], OK;
    "random_get", &[N(0xffff_fff0), N(32)], FAULT;
    "sched_yield", &[], OK;
    "poll_oneoff", &[N(0), N(0), N(0), Word], OK;
    "proc_raise", &[N(9)], NOT_SUPPORTED;
    "fd_write", &[N(1), Parts(&[]), Word], OK;
    "fd_write", &[N(0), Parts(&["x"]), Word], BAD_FILE;
    "fd_write", &[N(3), Parts(&["x"]), Word], BAD_FILE;
    "fd_write", &[N(1), N(0xffff_fff0), N(4), Word], FAULT;
    "fd_read", &[N(0), Parts(&[]), Word], NOT_OFFERED;
    "fd_close", &[N(1)], OK;
    "fd_close", &[N(3)], BAD_FILE;
    "fd_seek", &[N(2), N(0), N(0), Long], OK;
    "fd_seek", &[N(3), N(0), N(0), Long], BAD_FILE;
    "fd_tell", &[N(1), Long], OK;
    "fd_tell", &[N(3), Long], BAD_FILE;
    "fd_sync", &[N(1)], OK;
    "fd_sync", &[N(3)], BAD_FILE;
    "fd_datasync", &[N(1)], OK;
    "fd_datasync", &[N(3)], BAD_FILE;
    "fd_advise", &[N(1), N(0), N(0), N(0)], OK;
    "fd_allocate", &[N(1), N(0), N(0)], OK;
    "fd_allocate", &[N(3), N(0), N(0)], BAD_FILE;
    "fd_fdstat_get", &[N(1), N(1024)], OK;
    "fd_fdstat_get", &[N(3), N(1024)], BAD_FILE;
    "fd_fdstat_set_flags", &[N(1), N(0)], NOT_OFFERED;
    "fd_fdstat_set_rights", &[N(1), N(0), N(0)], OK;
    "fd_fdstat_set_rights", &[N(3), N(0), N(0)], BAD_FILE;
    "fd_filestat_get", &[N(1), N(1024)], BAD_FILE;
    "fd_filestat_set_size", &[N(1), N(0)], OK;
    "fd_filestat_set_size", &[N(3), N(0)], BAD_FILE;
    "fd_filestat_set_times", &[N(1), N(0), N(0), N(0)], OK;
    "fd_filestat_set_times", &[N(3), N(0), N(0), N(0)], BAD_FILE;
    "fd_pread", &[N(1), Parts(&[]), N(0), Word], NOT_OFFERED;
    "fd_pwrite", &[N(1), Parts(&[]), N(0), Word], NOT_OFFERED;
    "fd_prestat_get", &[N(3), N(1024)], BAD_FILE;
    "fd_prestat_dir_name", &[N(3), BUFFER], NOT_OFFERED;
    "fd_readdir", &[N(3), BUFFER, N(0), Word], NOT_A_DIRECTORY;
    "fd_renumber", &[N(1), N(2)], NOT_SUPPORTED;
    "path_open", &[N(3), N(0), T("file"), N(0), N(0), N(0), N(0), Word], NO_ENTRY;
    "path_create_directory", &[N(3), T("folder")], NOT_SUPPORTED;
    "path_filestat_get", &[N(3), N(0), T("file"), N(1024)], NOT_SUPPORTED;
    "path_filestat_set_times", &[N(3), N(0), T("file"), N(0), N(0), N(0)], NOT_SUPPORTED;
    "path_readlink", &[N(3), T("a"), BUFFER, Word], NOT_SUPPORTED;
    "path_remove_directory", &[N(3), T("a")], NOT_SUPPORTED;
    "path_rename", &[N(3), T("a"), N(3), T("b")], NOT_SUPPORTED;
    "path_symlink", &[T("a"), N(3), T("b")], NOT_SUPPORTED;
    "path_unlink_file", &[N(3), T("a")], NOT_SUPPORTED;
    "sock_accept", &[N(3), N(0), Word], NOT_SUPPORTED;
    "sock_recv", &[N(3), Parts(&[]), N(0), Word, Word], NOT_SUPPORTED;
    "sock_send", &[N(3), Parts(&[]), N(0), Word], NOT_SUPPORTED;
    "sock_shutdown", &[N(3), N(0)], NOT_SUPPORTED;
}

#[tokio::test]
async fn in_every_callback() {
    looks_sane(&check(ROWS).await);
}

#[tokio::test]
async fn under_its_older_name() {
    looks_sane(&check(UNSTABLE).await);
}

fn looks_sane(reports: &[Report]) {
    let [early, late] = ["vm_start", "log"].map(|callback| last(reports, callback));
    assert_eq!((early.value(0), &early.results[0][2]), (&0.into(), &0.into()), "no arguments");
    let time = |report: &Report, place: usize| report.value(place).as_u64().unwrap();
    assert!(time(early, 4) < time(late, 4), "the wall clock");
    assert!(0 < time(early, 5) && time(early, 5) < time(late, 5), "the monotonic clock");
    assert_eq!(late.value(14), 0, "nothing happened");
}

#[tokio::test]
async fn what_is_written_is_logged() {
    let calls = [
        call("fd_write", &[N(1), Parts(&["suite: ", "to the output\n"]), Word]),
        call("fd_write", &[N(2), Parts(&["suite: to the errors"]), Word]),
    ];
    let script = Script::default().on("request_headers", calls);
    let running = World::start().await.run(&script).await;
    running.exchange().await;
    let lines = running.gate.stop().await.log;
    let level =
        |words: &str| lines.iter().find(|line| line.contains(words)).map(|line| line.contains("ERROR"));
    assert_eq!((level("suite: to the output"), level("suite: to the errors")), (Some(false), Some(true)));
    let reports = super::script::reports(&lines);
    let report = last(&reports, "request_headers");
    assert_eq!((report.value(0), report.value(1)), (&21.into(), &20.into()), "bytes written");
}
