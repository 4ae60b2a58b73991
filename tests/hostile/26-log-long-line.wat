;; A line of 4 MB, and a level that is none.
;;!row: 26
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 0 2

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 70)))
    (memory.fill (i32.const 65536) (i32.const 97) (i32.const 4000000))
    (call $say (call $log (i32.const 4) (i32.const 65536) (i32.const 4000000)))
    (call $say (call $log (i32.const 6) (i32.const 112) (i32.const 3)))))
  (i32.const 0))
