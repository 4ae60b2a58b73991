;; A direct response with 29,000 fields, each of another name.
;;!row: 17
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 2
;;!upstream: kept

(data (i32.const 1024) "meshgate.route")
;; A decision with a direct response of 261,003 bytes: status 418, and then the fields.
(data (i32.const 1056) "\2a\8b\f7\0f\08\a2\03")
;; One of them: a name of 5 digits.
(data (i32.const 1072) "\1a\07\0a\0500000")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $at i32) (local $count i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 8)))
    (memory.copy (i32.const 65536) (i32.const 1056) (i32.const 7))
    (local.set $at (i32.const 65543))
    (loop $more
      (i32.store8 (i32.const 1076) (i32.add (i32.const 48) (i32.div_u (local.get $count) (i32.const 10000))))
      (i32.store8 (i32.const 1077) (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $count) (i32.const 1000)) (i32.const 10))))
      (i32.store8 (i32.const 1078) (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $count) (i32.const 100)) (i32.const 10))))
      (i32.store8 (i32.const 1079) (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $count) (i32.const 10)) (i32.const 10))))
      (i32.store8 (i32.const 1080) (i32.add (i32.const 48) (i32.rem_u (local.get $count) (i32.const 10))))
      (memory.copy (local.get $at) (i32.const 1072) (i32.const 9))
      (local.set $at (i32.add (local.get $at) (i32.const 9)))
      (local.set $count (i32.add (local.get $count) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $count) (i32.const 29000))))
    (call $say (call $foreign (i32.const 1024) (i32.const 14) (i32.const 65536)
      (i32.sub (local.get $at) (i32.const 65536)) (i32.const 0) (i32.const 0)))))
  (i32.const 0))
