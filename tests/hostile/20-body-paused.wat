;; Holds the end of the request's body back and never lets go.
;;!row: 20
;;!limits: {pause: 200ms}
;;!attack: 504 WL
;;!ask: length
;;!traps: 0
;;!skip: 200
;;!limit: pause

(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
  (call $attacked))
