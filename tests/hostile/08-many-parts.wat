;; Hundreds of thousands of empty parts in a message, for each function that takes one: a megabyte, and as many bytes as a message
;; may have. It would take longer to decode them than the callback may.
;;!row: 8
;;!attack: 200
;;!said: 2 2 2 2 2 2 2 2 2 2 2 2

(data (i32.const 1024) "meshgate.kv")
(data (i32.const 1056) "meshgate.cancel")
(data (i32.const 1088) "declare_property")
(data (i32.const 1120) "set_envoy_filter_state")
(data (i32.const 1152) "verify_signature")
(data (i32.const 1184) "sign")
(func $ask (param $name i32) (param $length i32)
  (call $say (call $foreign (local.get $name) (local.get $length) (i32.const 65536) (i32.const 1048576)
    (i32.const 0) (i32.const 0)))
  (call $say (call $foreign (local.get $name) (local.get $length) (i32.const 65536) (i32.const 262144)
    (i32.const 0) (i32.const 0))))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $size i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 16)))
    ;; A part of a field that no message has, then as many again, and again.
    (i32.store16 (i32.const 65536) (i32.const 0x007a))
    (local.set $size (i32.const 2))
    (loop $more
      (memory.copy (i32.add (i32.const 65536) (local.get $size)) (i32.const 65536) (local.get $size))
      (local.set $size (i32.shl (local.get $size) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $size) (i32.const 1048576))))
    (call $ask (i32.const 1024) (i32.const 11))
    (call $ask (i32.const 1056) (i32.const 15))
    (call $ask (i32.const 1088) (i32.const 16))
    (call $ask (i32.const 1120) (i32.const 22))
    (call $ask (i32.const 1152) (i32.const 16))
    (call $ask (i32.const 1184) (i32.const 4))))
  (i32.const 0))
