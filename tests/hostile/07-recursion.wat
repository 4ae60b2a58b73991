;; Calls itself for ever.
;;!row: 7
;;!limits: {time: 100ms}
;;!attack: 503 WL
;;!limit: stack
;;!cause: limit

(func $deeper (param i64 i64 i64 i64) (result i64)
  (i64.add (local.get 0) (call $deeper (local.get 1) (local.get 2) (local.get 3) (local.get 0))))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (call $deeper (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)))))
  (i32.const 0))
