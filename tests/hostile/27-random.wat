;; Random bytes for 4 GiB, for more than there is, and for more than may be copied.
;;!row: 27
;;!attack: 503 WL
;;!said:

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (call $random (i32.const 0) (i32.const -1)))
    (drop (memory.grow (i32.const 150)))
    (drop (call $random (i32.const 0) (i32.const 9000000)))))
  (i32.const 0))
