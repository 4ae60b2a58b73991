;; A tick of a millisecond that works for as long as it may, and one hostcall more.
;;!row: 24
;;!attack: 200
;;!limit: tick

(func (export "proxy_on_configure") (param i32 i32) (result i32)
  (drop (call $tick (i32.const 1)))
  (i32.const 1))
(func (export "proxy_on_tick") (param i32)
  (local $left i32)
  (local.set $left (i32.const 200000))
  (loop $again
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (local.get $left)))
  (drop (call $tick (i32.const 1))))
