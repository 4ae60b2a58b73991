;; Files, directories, sockets, sleep and the process's environment: none of it is there.
;;!row: 27
;;!attack: 200
;;!said: 8 44 52 58 0 0 0 8 21

(data (i32.const 1024) "/etc/passwd")
;; A subscription to the monotonic clock, in an hour.
(data (i32.const 1100) "\01\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00\00\a0\b8\30\46\03\00\00")
;; One piece of output: 3 bytes at 112. And one of 4 GiB.
(data (i32.const 1200) "\70\00\00\00\03\00\00\00\00\00\00\00\ff\ff\ff\ff")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $fd_prestat_get (i32.const 3) (i32.const 8)))
    (call $say (call $path_open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 11) (i32.const 0) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 8)))
    (call $say (call $fd_read (i32.const 0) (i32.const 1200) (i32.const 1) (i32.const 8)))
    (call $say (call $sock_accept (i32.const 3) (i32.const 0) (i32.const 8)))
    (call $say (call $poll (i32.const 1100) (i32.const 2048) (i32.const 1) (i32.const 8)))
    (call $say (call $environ_sizes (i32.const 8) (i32.const 12)))
    (call $say (i32.load (i32.const 8)))
    (call $say (call $fd_write (i32.const 3) (i32.const 1200) (i32.const 1) (i32.const 8)))
    (call $say (call $fd_write (i32.const 1) (i32.const 1208) (i32.const 1) (i32.const 8)))))
  (i32.const 0))
