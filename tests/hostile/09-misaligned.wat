;; Addresses that no machine likes: all of them work.
;;!row: 9
;;!attack: 200
;;!said: 0 0 0 0

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $time (i32.const 1025)))
    (call $say (call $get (i32.const 0) (i32.const 16) (i32.const 8) (i32.const 1027) (i32.const 1031)))
    (call $say (call $time (i32.const 65528)))
    (call $say (call $environ_sizes (i32.const 1029) (i32.const 1033)))))
  (i32.const 0))
