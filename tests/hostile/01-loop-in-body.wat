;; The loop is in the callback for the body, when the head has been sent on already.
;;!row: 1
;;!attack: 503 WL
;;!limit: body_time
;;!cause: deadline

(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (loop $again (br $again))))
  (i32.const 0))
