;; Puts 4,000 items into a queue and takes each of them out again, and leaves twenty there. Whenever it is told of the queue it takes
;; one out, and works for two milliseconds.
;;!row: 25
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 0

(data (i32.const 1024) "hostile events")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $left i32) (local $status i32)
  (if (call $attacked) (then
    (local.set $status (call $register (i32.const 1024) (i32.const 14) (i32.const 1040)))
    (local.set $left (i32.const 4000))
    (loop $next
      (local.set $status (i32.or (local.get $status)
        (call $enqueue (i32.load (i32.const 1040)) (i32.const 16) (i32.const 8))))
      (local.set $status (i32.or (local.get $status)
        (call $dequeue (i32.load (i32.const 1040)) (i32.const 8) (i32.const 12))))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))
    (local.set $left (i32.const 20))
    (loop $next
      (local.set $status (i32.or (local.get $status)
        (call $enqueue (i32.load (i32.const 1040)) (i32.const 16) (i32.const 8))))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))
    (call $say (local.get $status))))
  (i32.const 0))
(func (export "proxy_on_queue_ready") (param $plugin i32) (param $queue i32)
  (local $until i64) (local $left i32)
  (drop (call $dequeue (local.get $queue) (i32.const 8) (i32.const 12)))
  (drop (call $time (i32.const 1048)))
  (local.set $until (i64.add (i64.load (i32.const 1048)) (i64.const 2000000)))
  (loop $again
    (local.set $left (i32.const 10000))
    (loop $work
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $work (local.get $left)))
    (drop (call $time (i32.const 1048)))
    (br_if $again (i64.lt_u (i64.load (i32.const 1048)) (local.get $until)))))
