;; Ends the program.
;;!row: 27
;;!attack: 503 WT
;;!cause: trap

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $exit (i32.const 0))))
  (i32.const 0))
