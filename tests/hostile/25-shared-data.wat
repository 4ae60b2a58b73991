;; Puts values of 100 kB under ever new keys until no more are taken, and then takes them away.
;;!row: 25
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 1 10
;;!limit: shared_bytes

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $key i32) (local $status i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 2)))
    (loop $next
      (local.set $key (i32.add (local.get $key) (i32.const 1)))
      (i32.store (i32.const 1024) (local.get $key))
      (local.set $status (call $set_shared (i32.const 1024) (i32.const 4) (i32.const 65536) (i32.const 100000) (i32.const 0)))
      (br_if $next (i32.and (i32.eqz (local.get $status)) (i32.lt_u (local.get $key) (i32.const 40)))))
    (call $say (i32.ne (local.get $key) (i32.const 1)))))
  (i32.const 0))
(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
  (local $key i32) (local $status i32)
  (if (call $attacked) (then
    (local.set $key (i32.const 40))
    (loop $next
      (local.set $key (i32.add (local.get $key) (i32.const 1)))
      (i32.store (i32.const 1024) (local.get $key))
      (local.set $status (call $set_shared (i32.const 1024) (i32.const 4) (i32.const 65536) (i32.const 100000) (i32.const 0)))
      (br_if $next (i32.and (i32.eqz (local.get $status)) (i32.lt_u (local.get $key) (i32.const 120)))))
    (call $say (local.get $status))
    (loop $back
      (i32.store (i32.const 1024) (local.get $key))
      (drop (call $set_shared (i32.const 1024) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 0)))
      (local.set $key (i32.sub (local.get $key) (i32.const 1)))
      (br_if $back (local.get $key)))))
  (i32.const 0))
