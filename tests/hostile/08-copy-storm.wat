;; Fewer hostcalls, each of which copies a lot.
;;!row: 8
;;!limits: {time: 100ms, copied: 1MiB}
;;!attack: 503 WL
;;!limit: copied
;;!cause: limit

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 16)))
    (loop $again (drop (call $random (i32.const 65536) (i32.const 1000000))) (br $again))))
  (i32.const 0))
