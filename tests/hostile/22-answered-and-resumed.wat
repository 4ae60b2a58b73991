;; A local response, then the request is resumed and closed as well: the answer counts.
;;!row: 22
;;!attack: 418
;;!upstream: none
;;!skip: no

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (call $answer (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 112) (i32.const 3) (i32.const 0) (i32.const 0) (i32.const -1)))
    (drop (call $resume (i32.const 0)))
    (drop (call $resume (i32.const 1)))
    (drop (call $close (i32.const 0)))))
  (i32.const 0))
