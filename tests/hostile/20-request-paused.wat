;; Pauses the request and never resumes it.
;;!row: 20
;;!limits: {pause: 200ms}
;;!attack: 504 WL
;;!traps: 0
;;!skip: 200
;;!upstream: none
;;!limit: pause

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (return (i32.const 1))))
  (i32.const 0))
