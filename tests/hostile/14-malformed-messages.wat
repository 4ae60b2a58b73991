;; Arguments of foreign functions that are no messages, are far too long, or hold a hundred thousand empty parts.
;;!row: 14
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 2 2 2 2 2 2 1 1
;;!upstream: kept

(data (i32.const 1024) "meshgate.route")
(data (i32.const 1056) "meshgate.metric")
(data (i32.const 1088) "declare_property")
(data (i32.const 1120) "set_envoy_filter_state")
(data (i32.const 1152) "\ff\ff\ff\ff\ff")
;; A field of 2^32 - 1 bytes.
(data (i32.const 1168) "\0a\ff\ff\ff\ff\0f")
;; A decision with a direct response of 261,997 bytes: status 418, and from then on empty fields.
(data (i32.const 1184) "\2a\ed\fe\0f\08\a2\03")
(func $call (param $name i32) (param $length i32) (param $argument i32) (param $size i32) (result i32)
  (call $foreign (local.get $name) (local.get $length) (local.get $argument) (local.get $size)
    (i32.const 0) (i32.const 0)))
(func $fill (param $pair i32)
  (local $at i32)
  (local.set $at (i32.const 65536))
  (loop $more
    (i32.store16 (local.get $at) (local.get $pair))
    (local.set $at (i32.add (local.get $at) (i32.const 2)))
    (br_if $more (i32.lt_u (local.get $at) (i32.const 1065536)))))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 16)))
    (call $fill (i32.const 0x001a))
    (call $say (call $call (i32.const 1024) (i32.const 14) (i32.const 1152) (i32.const 5)))
    (call $say (call $call (i32.const 1056) (i32.const 15) (i32.const 1168) (i32.const 6)))
    (call $say (call $call (i32.const 1088) (i32.const 16) (i32.const 1152) (i32.const 5)))
    (call $say (call $call (i32.const 1120) (i32.const 22) (i32.const 1168) (i32.const 6)))
    ;; Labels without name and value.
    (call $say (call $call (i32.const 1056) (i32.const 15) (i32.const 65536) (i32.const 1000000)))
    ;; Fields without name and value.
    (memory.copy (i32.const 65533) (i32.const 1184) (i32.const 7))
    (call $say (call $call (i32.const 1024) (i32.const 14) (i32.const 65533) (i32.const 262001)))
    ;; A name that is none, and one that is longer than any.
    (call $say (call $call (i32.const 1152) (i32.const 5) (i32.const 0) (i32.const 0)))
    (call $say (call $call (i32.const 65536) (i32.const 1000000) (i32.const 0) (i32.const 0)))))
  (i32.const 0))
