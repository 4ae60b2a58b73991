;; Compares and sets with a version that is always wrong.
;;!row: 25
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 0 8

(data (i32.const 1024) "hostile cas")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $left i32) (local $status i32)
  (if (call $attacked) (then
    (call $say (call $set_shared (i32.const 1024) (i32.const 11) (i32.const 16) (i32.const 8) (i32.const 0)))
    (local.set $left (i32.const 5000))
    (loop $next
      (local.set $status (call $set_shared (i32.const 1024) (i32.const 11) (i32.const 16) (i32.const 8) (i32.const -7)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))
    (call $say (local.get $status))))
  (i32.const 0))
