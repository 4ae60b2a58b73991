;; Hostcalls without end.
;;!row: 8
;;!limits: {time: 100ms}
;;!attack: 503 WL
;;!limit: hostcalls
;;!cause: limit

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (loop $again (drop (call $time (i32.const 8))) (br $again))))
  (i32.const 0))
