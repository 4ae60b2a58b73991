;; Puts items into a queue until it is full, and takes them out again: it has as many as went in.
;;!row: 25
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 1000 10 1000 7
;;!limit: queue_items

(data (i32.const 1024) "hostile growth")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $count i32) (local $status i32)
  (if (call $attacked) (then
    (drop (call $register (i32.const 1024) (i32.const 14) (i32.const 1040)))
    (loop $next
      (local.set $status (call $enqueue (i32.load (i32.const 1040)) (i32.const 16) (i32.const 8)))
      (local.set $count (i32.add (local.get $count) (i32.eqz (local.get $status))))
      (br_if $next (i32.and (i32.eqz (local.get $status)) (i32.lt_u (local.get $count) (i32.const 3000)))))
    (call $say (local.get $count))
    (call $say (local.get $status))
    (local.set $count (i32.const 0))
    (loop $next
      (local.set $status (call $dequeue (i32.load (i32.const 1040)) (i32.const 8) (i32.const 12)))
      (local.set $count (i32.add (local.get $count) (i32.eqz (local.get $status))))
      (br_if $next (i32.eqz (local.get $status))))
    (call $say (local.get $count))
    (call $say (local.get $status))))
  (i32.const 0))
