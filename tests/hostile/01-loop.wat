;; A callback that never returns.
;;!row: 1
;;!attack: 503 WL
;;!limit: time
;;!cause: deadline

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (loop $again (br $again))))
  (i32.const 0))
