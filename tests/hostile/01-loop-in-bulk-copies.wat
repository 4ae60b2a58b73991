;; Few instructions that take long: each copies the whole memory onto itself.
;;!row: 1
;;!attack: 503 WL
;;!limit: time

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 200)))
    (loop $again
      (memory.copy (i32.const 0) (i32.const 1024) (i32.const 13000000))
      (br $again))))
  (i32.const 0))
