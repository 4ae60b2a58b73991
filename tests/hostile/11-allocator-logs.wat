;; The allocator logs and reads the clock, which it may.
;;!row: 11
;;!attack: 200
;;!said: 0

(global $armed (mut i32) (i32.const 0))
(func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (if (global.get $armed) (then
    (drop (call $log (i32.const 2) (i32.const 112) (i32.const 3)))
    (drop (call $time (i32.const 1024)))))
  (call $allocate (local.get $size)))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (global.set $armed (i32.const 1))
    (call $say (call $pairs (i32.const 0) (i32.const 8) (i32.const 12)))
    (global.set $armed (i32.const 0))))
  (i32.const 0))
