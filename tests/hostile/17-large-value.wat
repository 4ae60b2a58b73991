;; A field of 4 MB.
;;!row: 17
;;!limits: {time: 100ms}
;;!attack: 431 WL
;;!traps: 0
;;!skip: no
;;!upstream: none

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 70)))
    (memory.fill (i32.const 65536) (i32.const 97) (i32.const 4000000))
    (drop (call $add (i32.const 0) (i32.const 112) (i32.const 3) (i32.const 65536) (i32.const 4000000)))))
  (i32.const 0))
