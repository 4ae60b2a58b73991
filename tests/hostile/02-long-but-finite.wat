;; Work for a millisecond or so, with every request: slow, and allowed.
;;!row: 2
;;!attack: 200
;;!said: 1

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $left i32)
  (local.set $left (i32.const 300000))
  (loop $again
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (local.get $left)))
  (if (call $attacked) (then (call $say (i32.const 1))))
  (i32.const 0))
