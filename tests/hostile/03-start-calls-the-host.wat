;; The start function makes hostcalls, when there is no context yet to make them on. They fail, and nothing else does.
;;!row: 3
;;!attack: 200
;;!said: 10 10 10 10

(global $first (mut i32) (i32.const 0))
(global $second (mut i32) (i32.const 0))
(global $third (mut i32) (i32.const 0))
(global $fourth (mut i32) (i32.const 0))
(func $start
  (global.set $first (call $get (i32.const 0) (i32.const 16) (i32.const 8) (i32.const 8) (i32.const 12)))
  (global.set $second (call $tick (i32.const 1)))
  (global.set $third (call $http_call (i32.const 48) (i32.const 3) (i32.const 160) (i32.const 69)
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 8)))
  (global.set $fourth (call $answer (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
    (i32.const 0) (i32.const 0) (i32.const -1))))
(start $start)
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (global.get $first))
    (call $say (global.get $second))
    (call $say (global.get $third))
    (call $say (global.get $fourth))))
  (i32.const 0))
