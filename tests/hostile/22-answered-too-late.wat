;; A local response when the response's body is on its way: what the client gets must not look whole, unless it is an error.
;;!row: 22
;;!attack: 502|broken
;;!skip: no

(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (call $answer (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 112) (i32.const 3) (i32.const 0) (i32.const 0) (i32.const -1)))))
  (i32.const 0))
