;; The configuration is accepted with everything tried that does not belong there: calls for streams, local responses, a
;; tick of a millisecond, a call that is never answered.
;;!row: 4
;;!attack: 200
;;!said: 2 1 0 0 2 0

(global $statuses (mut i32) (i32.const 2048))
(func $keep (param $status i32)
  (i32.store (global.get $statuses) (local.get $status))
  (global.set $statuses (i32.add (global.get $statuses) (i32.const 4))))
(func (export "proxy_on_configure") (param i32 i32) (result i32)
  (call $keep (call $add (i32.const 0) (i32.const 112) (i32.const 3) (i32.const 112) (i32.const 3)))
  (call $keep (call $buffer (i32.const 0) (i32.const 0) (i32.const 10) (i32.const 8) (i32.const 12)))
  (call $keep (call $resume (i32.const 0)))
  (call $keep (call $answer (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
    (i32.const 0) (i32.const 0) (i32.const -1)))
  (call $keep (call $set_buffer (i32.const 7) (i32.const 0) (i32.const 0) (i32.const 112) (i32.const 3)))
  (call $keep (call $tick (i32.const 1)))
  (i32.const 1))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (i32.load (i32.const 2048)))
    (call $say (i32.load (i32.const 2052)))
    (call $say (i32.load (i32.const 2056)))
    (call $say (i32.load (i32.const 2060)))
    (call $say (i32.load (i32.const 2064)))
    (call $say (i32.load (i32.const 2068)))))
  (i32.const 0))
