;; Names of queues that are as long as they may be, and longer. As many as it may have, of a megabyte each, would stay in memory.
;;!row: 25
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 0 2 2 1

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 16)))
    (call $say (call $register (i32.const 1024) (i32.const 256) (i32.const 8)))
    (call $say (call $register (i32.const 1024) (i32.const 257) (i32.const 8)))
    (call $say (call $register (i32.const 0) (i32.const 1000000) (i32.const 8)))
    (call $say (call $resolve (i32.const 0) (i32.const 1000000) (i32.const 0) (i32.const 1000000) (i32.const 8)))))
  (i32.const 0))
