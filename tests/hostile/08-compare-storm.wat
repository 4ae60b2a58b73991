;; Every hostcall names a key of 60 kB, which has to be hashed and compared.
;;!row: 8
;;!limits: {time: 100ms, copied: 1MiB}
;;!attack: 503 WL
;;!limit: copied
;;!cause: limit

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (loop $again (drop (call $shared (i32.const 1024) (i32.const 60000) (i32.const 8) (i32.const 12) (i32.const 8))) (br $again))))
  (i32.const 0))
