;; Pauses the response and never resumes it.
;;!row: 20
;;!limits: {pause: 200ms}
;;!attack: 504 WL
;;!traps: 0
;;!skip: 200
;;!limit: pause

(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
  (call $attacked))
