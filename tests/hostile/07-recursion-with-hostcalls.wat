;; A hostcall at every depth, so that one of them is made where nearly nothing of the stack is left.
;;!row: 7
;;!limits: {time: 100ms}
;;!attack: 503 WL
;;!cause: limit

(data (i32.const 1024) "request\00headers")
(func $deeper (param i64) (result i64)
  (drop (call $property (i32.const 1024) (i32.const 15) (i32.const 8) (i32.const 12)))
  (i64.add (call $deeper (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))
;; Down to where the stack ends without hostcalls, then one on the way at each of the last frames.
(func $dive (param $left i32) (result i32)
  (if (i32.eqz (local.get $left)) (then (return (call $property (i32.const 1024) (i32.const 15) (i32.const 8) (i32.const 12)))))
  (i32.add (call $dive (i32.sub (local.get $left) (i32.const 1))) (i32.const 1)))
(global $depth (mut i32) (i32.const 1000))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (loop $again
      (drop (call $dive (global.get $depth)))
      (global.set $depth (i32.add (global.get $depth) (i32.const 500)))
      (br $again))))
  (i32.const 0))
