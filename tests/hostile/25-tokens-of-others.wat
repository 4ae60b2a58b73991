;; Tries the tokens of queues that others have registered: puts something into each, and takes something out. It finds none.
;;!row: 25
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 0

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $token i32) (local $found i32)
  (if (call $attacked) (then
    (loop $next
      (local.set $token (i32.add (local.get $token) (i32.const 1)))
      (local.set $found (i32.add (local.get $found)
        (i32.ne (call $enqueue (local.get $token) (i32.const 16) (i32.const 8)) (i32.const 1))))
      (local.set $found (i32.add (local.get $found)
        (i32.ne (call $dequeue (local.get $token) (i32.const 8) (i32.const 12)) (i32.const 1))))
      (br_if $next (i32.lt_u (local.get $token) (i32.const 1000))))
    (call $say (local.get $found))))
  (i32.const 0))
