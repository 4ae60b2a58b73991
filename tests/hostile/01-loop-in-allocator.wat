;; The loop is in the allocator, inside of a hostcall.
;;!row: 1
;;!attack: 503 WL
;;!limit: time
;;!cause: deadline

(global $armed (mut i32) (i32.const 0))
(func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (if (global.get $armed) (then (loop $again (br $again))))
  (call $allocate (local.get $size)))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (global.set $armed (i32.const 1))
    (drop (call $pairs (i32.const 0) (i32.const 8) (i32.const 12)))))
  (i32.const 0))
