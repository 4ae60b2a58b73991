;; A body for 204: the status goes out, and the body does not.
;;!row: 22
;;!attack: 204
;;!skip: no
;;!body: empty

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (call $answer (i32.const 204) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 8) (i32.const 0) (i32.const 0) (i32.const -1)))))
  (i32.const 0))
