;; The same for local responses and calls.
;;!row: 14
;;!attack: 200
;;!said: 2 2 2
;;!upstream: kept
;;!calls: 0

(data (i32.const 1024) "\01\00\00\00\ff\00\00\00\01\00\00\00a\00b\00")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $answer (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 16) (i32.const -1)))
    (call $say (call $http_call (i32.const 48) (i32.const 3) (i32.const 1024) (i32.const 16) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 8)))
    (call $say (call $http_call (i32.const 48) (i32.const 3) (i32.const 160) (i32.const 69) (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 16) (i32.const 1000) (i32.const 8)))))
  (i32.const 0))
