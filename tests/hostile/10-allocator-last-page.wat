;; The allocator gives the last byte, too little for anything.
;;!row: 10
;;!attack: 200
;;!said: 6 6

(global $armed (mut i32) (i32.const 0))
(func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (if (global.get $armed) (then (return (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 1)))))
  (call $allocate (local.get $size)))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (global.set $armed (i32.const 1))
    (call $say (call $pairs (i32.const 0) (i32.const 2048) (i32.const 2052)))
    (call $say (call $get (i32.const 0) (i32.const 64) (i32.const 5) (i32.const 2048) (i32.const 2052)))
    (global.set $armed (i32.const 0))))
  (i32.const 0))
