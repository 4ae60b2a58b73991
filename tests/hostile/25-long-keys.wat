;; Keys of shared data that are as long as they may be, and longer: they would be hashed while others wait.
;;!row: 25
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 0 10 1 0
;;!limit: shared_bytes

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 2)))
    (call $say (call $set_shared (i32.const 65536) (i32.const 65536) (i32.const 16) (i32.const 8) (i32.const 0)))
    (call $say (call $set_shared (i32.const 65536) (i32.const 65537) (i32.const 16) (i32.const 8) (i32.const 0)))
    (call $say (call $shared (i32.const 65536) (i32.const 65537) (i32.const 8) (i32.const 12) (i32.const 1024)))
    (call $say (call $set_shared (i32.const 65536) (i32.const 65536) (i32.const 0) (i32.const 0) (i32.const 0)))))
  (i32.const 0))
