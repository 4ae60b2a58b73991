;; Calls to a cluster that does not exist, to an address, with a negative timeout, without a path.
;;!row: 21
;;!attack: 200
;;!said: 2 2 2 2
;;!calls: 0

(data (i32.const 1024) "nowhere")
(data (i32.const 1040) "127.0.0.1:80")
(data (i32.const 1056) "\01\00\00\00\07\00\00\00\03\00\00\00:method\00GET\00")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $http_call (i32.const 1024) (i32.const 7) (i32.const 160) (i32.const 69) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 8)))
    (call $say (call $http_call (i32.const 1040) (i32.const 12) (i32.const 160) (i32.const 69) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 8)))
    (call $say (call $http_call (i32.const 48) (i32.const 3) (i32.const 160) (i32.const 69) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 8)))
    (call $say (call $http_call (i32.const 48) (i32.const 3) (i32.const 1056) (i32.const 24) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 8)))))
  (i32.const 0))
