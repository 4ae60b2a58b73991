;; Has the host compress a quarter of a megabyte over and over, which takes the host longer than it takes the guest to ask.
;;!row: 8
;;!limits: {time: 5ms}
;;!attack: 503 WL
;;!limit: time
;;!cause: deadline

(data (i32.const 1024) "compress")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $at i32) (local $seed i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 4)))
    (local.set $at (i32.const 65536))
    (local.set $seed (i32.const 1))
    ;; Text of few letters: a compressor finds something everywhere, and never enough.
    (loop $fill
      (local.set $seed (i32.add (i32.mul (local.get $seed) (i32.const 1103515245)) (i32.const 12345)))
      (i32.store8 (local.get $at) (i32.and (i32.shr_u (local.get $seed) (i32.const 16)) (i32.const 3)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $fill (i32.lt_u (local.get $at) (i32.const 327680))))
    (loop $again
      (drop (call $foreign (i32.const 1024) (i32.const 8) (i32.const 65536) (i32.const 262144)
        (i32.const 0) (i32.const 0)))
      (br $again))))
  (i32.const 0))
