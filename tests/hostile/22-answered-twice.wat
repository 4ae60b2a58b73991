;; Two local responses: the first counts.
;;!row: 22
;;!attack: 418
;;!said: 0 0
;;!upstream: none
;;!skip: no

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $answer (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 112) (i32.const 3) (i32.const 0) (i32.const 0) (i32.const -1)))
    (call $say (call $answer (i32.const 500) (i32.const 0) (i32.const 0) (i32.const 112) (i32.const 3) (i32.const 0) (i32.const 0) (i32.const -1)))))
  (i32.const 0))
