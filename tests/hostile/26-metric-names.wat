;; Names of metrics that are none: empty, too long, not text; a type that is none; ids that are none; values beyond all bounds.
;;!row: 26
;;!attack: 200
;;!said: 2 2 2 2 1 1 1

(data (i32.const 1024) "\ff\fe")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (memory.fill (i32.const 2048) (i32.const 97) (i32.const 1025))
    (call $say (call $define (i32.const 0) (i32.const 2048) (i32.const 0) (i32.const 8)))
    (call $say (call $define (i32.const 0) (i32.const 2048) (i32.const 1025) (i32.const 8)))
    (call $say (call $define (i32.const 0) (i32.const 1024) (i32.const 2) (i32.const 8)))
    (call $say (call $define (i32.const 3) (i32.const 112) (i32.const 3) (i32.const 8)))
    (call $say (call $record (i32.const -1) (i64.const -1)))
    (call $say (call $increment (i32.const 0) (i64.const -1)))
    (call $say (call $metric (i32.const 1000000) (i32.const 8)))))
  (i32.const 0))
