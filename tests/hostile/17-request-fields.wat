;; Adds fields until no more are taken: the request is too large to be sent on.
;;!row: 17
;;!limits: {time: 100ms}
;;!attack: 431 WL
;;!traps: 0
;;!skip: no
;;!upstream: none

(func $many (param $map i32) (result i32)
  (local $count i32)
  (loop $next
    (i32.store (i32.const 1024) (i32.add (i32.const 0x61616161)
      (i32.add (i32.and (local.get $count) (i32.const 15))
        (i32.add (i32.shl (i32.and (i32.shr_u (local.get $count) (i32.const 4)) (i32.const 15)) (i32.const 8))
          (i32.shl (i32.and (i32.shr_u (local.get $count) (i32.const 8)) (i32.const 15)) (i32.const 16))))))
    (if (call $add (local.get $map) (i32.const 1024) (i32.const 4) (i32.const 112) (i32.const 3)) (then
      (return (i32.const 1))))
    (local.set $count (i32.add (local.get $count) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $count) (i32.const 4000))))
  (i32.const 0))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $many (i32.const 0)))))
  (i32.const 0))
