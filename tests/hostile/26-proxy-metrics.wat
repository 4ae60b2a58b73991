;; Takes names of others: those of the proxy and of its process, one that a histogram shows samples under, and one for a histogram
;; that would show them under another's. Two metrics of one name would make the whole page unreadable.
;;!row: 26
;;!attack: 200
;;!said: 2 2 0 2 0 2

(data (i32.const 1024) "meshgate.metric")
;; The name, and the type if it is no counter.
(data (i32.const 1056) "\0a\1emeshgate_plugin_failures_total")
(data (i32.const 1120) "\0a\10process_open_fds")
(data (i32.const 1184) "\0a\0dhostile_taken\10\02")
(data (i32.const 1248) "\0a\13hostile_taken_count")
(data (i32.const 1312) "\0a\10hostile_free_sum")
(data (i32.const 1376) "\0a\0chostile_free\10\02")
(func $series (param $at i32) (param $size i32)
  (call $say (call $foreign (i32.const 1024) (i32.const 15) (local.get $at) (local.get $size) (i32.const 8) (i32.const 12))))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $series (i32.const 1056) (i32.const 32))
    (call $series (i32.const 1120) (i32.const 18))
    (call $series (i32.const 1184) (i32.const 17))
    (call $series (i32.const 1248) (i32.const 21))
    (call $series (i32.const 1312) (i32.const 18))
    (call $series (i32.const 1376) (i32.const 16))))
  (i32.const 0))
