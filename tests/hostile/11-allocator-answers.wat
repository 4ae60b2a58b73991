;; The allocator makes a hostcall that it may not make.
;;!row: 11
;;!attack: 503 WL
;;!limit: allocator

(global $armed (mut i32) (i32.const 0))
(func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (if (global.get $armed) (then (drop (call $answer (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))))
  (call $allocate (local.get $size)))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (global.set $armed (i32.const 1))
    (drop (call $pairs (i32.const 0) (i32.const 8) (i32.const 12)))))
  (i32.const 0))
