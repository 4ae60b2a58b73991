;; Sets properties of an exchange, each under another name, until no more are taken.
;;!row: 25
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 256 10
;;!limit: properties

(data (i32.const 1024) "hostile_000")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $count i32) (local $status i32)
  (if (call $attacked) (then
    (loop $next
      (i32.store8 (i32.const 1032) (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $count) (i32.const 100)) (i32.const 10))))
      (i32.store8 (i32.const 1033) (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $count) (i32.const 10)) (i32.const 10))))
      (i32.store8 (i32.const 1034) (i32.add (i32.const 48) (i32.rem_u (local.get $count) (i32.const 10))))
      (local.set $status (call $set_property (i32.const 1024) (i32.const 11) (i32.const 1024) (i32.const 8)))
      (local.set $count (i32.add (local.get $count) (i32.eqz (local.get $status))))
      (br_if $next (i32.and (i32.eqz (local.get $status)) (i32.lt_u (local.get $count) (i32.const 900)))))
    (call $say (local.get $count))
    (call $say (local.get $status))))
  (i32.const 0))
