;; A zlib stream of 65 kB that unpacks to 10 MB of zeros, over and over: what is unpacked of it counts as copied.
;;!row: 8
;;!limits: {time: 100ms, copied: 1MiB}
;;!attack: 503 WL
;;!limit: copied
;;!cause: limit

(data (i32.const 1024) "uncompress")
;; Header and first zero; then the same zero 2064 times, in 13 bytes.
(data (i32.const 1040) "\78\9c\63\18\05\a3\60\14\8c\82\51\30\0a\46\c1\28")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $at i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 1)))
    (memory.copy (i32.const 65536) (i32.const 1040) (i32.const 3))
    (local.set $at (i32.const 65539))
    (loop $fill
      (memory.copy (local.get $at) (i32.const 1043) (i32.const 13))
      (local.set $at (i32.add (local.get $at) (i32.const 13)))
      (br_if $fill (i32.lt_u (local.get $at) (i32.const 131000))))
    (loop $again
      (drop (call $foreign (i32.const 1024) (i32.const 10) (i32.const 65536) (i32.const 65400)
        (i32.const 0) (i32.const 0)))
      (br $again))))
  (i32.const 0))
