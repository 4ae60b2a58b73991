;; Holds the request's body back, all 2 MB of it.
;;!row: 19
;;!ask: large
;;!attack: 413 WL
;;!traps: 0
;;!skip: no
;;!upstream: none
;;!limit: body

(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
  (call $attacked))
