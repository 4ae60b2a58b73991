;; Bodies vanish.
;;!row: 18
;;!ask: length
;;!attack: 200

(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then (drop (call $set_buffer (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 16) (i32.const 0)))))
  (i32.const 0))
(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then (drop (call $set_buffer (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 16) (i32.const 0)))))
  (i32.const 0))
