;; Sets its timer a thousand times in one callback: one timer remains.
;;!row: 24
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 0

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $left i32) (local $status i32)
  (if (call $attacked) (then
    (local.set $left (i32.const 1000))
    (loop $next
      (local.set $status (i32.or (local.get $status) (call $tick (i32.const 3600000))))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))
    (call $say (local.get $status))))
  (i32.const 0))
