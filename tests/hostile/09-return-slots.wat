;; Good arguments, but no place for the answer: nothing happens, not even half of it.
;;!row: 9
;;!attack: 200
;;!said: 6 6 6 6 6 6 6 6 6 6 1
;;!upstream: kept
;;!calls: 0

(data (i32.const 1024) "request\00path")
(data (i32.const 1040) "hostile queue")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $get (i32.const 0) (i32.const 16) (i32.const 8) (i32.const -1) (i32.const 12)))
    (call $say (call $get (i32.const 0) (i32.const 16) (i32.const 8) (i32.const 8) (i32.const 65533)))
    (call $say (call $pairs (i32.const 0) (i32.const -2) (i32.const 12)))
    (call $say (call $map_size (i32.const 0) (i32.const 65533)))
    (call $say (call $property (i32.const 1024) (i32.const 12) (i32.const 8) (i32.const -1)))
    (call $say (call $shared (i32.const 112) (i32.const 3) (i32.const 8) (i32.const 12) (i32.const -1)))
    (call $say (call $register (i32.const 1040) (i32.const 13) (i32.const -1)))
    (call $say (call $define (i32.const 0) (i32.const 112) (i32.const 3) (i32.const -1)))
    (call $say (call $http_call (i32.const 48) (i32.const 3) (i32.const 160) (i32.const 69) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const -1)))
    (call $say (call $time (i32.const 65529)))
    (call $say (call $resolve (i32.const 0) (i32.const 0) (i32.const 1040) (i32.const 13) (i32.const 8)))))
  (i32.const 0))
