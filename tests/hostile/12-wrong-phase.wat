;; While the request's head is looked at: the response's map and body, call responses, configurations to be written, numbers
;; that name nothing.
;;!row: 12
;;!attack: 200
;;!said: 2 2 1 1 2 1 2 2 2 2 2 2
;;!upstream: kept

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $add (i32.const 2) (i32.const 112) (i32.const 3) (i32.const 112) (i32.const 3)))
    (call $say (call $set_pairs (i32.const 3) (i32.const 0) (i32.const 0)))
    (call $say (call $get (i32.const 2) (i32.const 112) (i32.const 3) (i32.const 8) (i32.const 12)))
    (call $say (call $buffer (i32.const 1) (i32.const 0) (i32.const 10) (i32.const 8) (i32.const 12)))
    (call $say (call $add (i32.const 6) (i32.const 112) (i32.const 3) (i32.const 112) (i32.const 3)))
    (call $say (call $buffer (i32.const 4) (i32.const 0) (i32.const 10) (i32.const 8) (i32.const 12)))
    (call $say (call $set_buffer (i32.const 6) (i32.const 0) (i32.const 0) (i32.const 112) (i32.const 3)))
    (call $say (call $get (i32.const 8) (i32.const 112) (i32.const 3) (i32.const 8) (i32.const 12)))
    (call $say (call $buffer (i32.const 99) (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 12)))
    (call $say (call $resume (i32.const 9)))
    (call $say (call $close (i32.const -1)))
    (call $say (call $add (i32.const -1) (i32.const 112) (i32.const 3) (i32.const 112) (i32.const 3)))))
  (i32.const 0))
