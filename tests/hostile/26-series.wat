;; Defines labelled series, each with another label, until no more are taken.
;;!row: 26
;;!limits: {series: 200, time: 100ms}
;;!attack: 200
;;!said: 200 10
;;!limit: series

(data (i32.const 1024) "meshgate.metric")
;; The name and one label, l0000 of no value.
(data (i32.const 1056) "\0a\0ehostile_series\1a\09\0a\01l\12\040000")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $count i32) (local $status i32)
  (if (call $attacked) (then
    (loop $next
      (i32.store8 (i32.const 1079) (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $count) (i32.const 1000)) (i32.const 10))))
      (i32.store8 (i32.const 1080) (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $count) (i32.const 100)) (i32.const 10))))
      (i32.store8 (i32.const 1081) (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $count) (i32.const 10)) (i32.const 10))))
      (i32.store8 (i32.const 1082) (i32.add (i32.const 48) (i32.rem_u (local.get $count) (i32.const 10))))
      (local.set $status (call $foreign (i32.const 1024) (i32.const 15) (i32.const 1056) (i32.const 27)
        (i32.const 8) (i32.const 12)))
      (local.set $count (i32.add (local.get $count) (i32.eqz (local.get $status))))
      (br_if $next (i32.and (i32.eqz (local.get $status)) (i32.lt_u (local.get $count) (i32.const 3000)))))
    (call $say (local.get $count))
    (call $say (local.get $status))))
  (i32.const 0))
