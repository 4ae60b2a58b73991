;; One instruction that takes long: it fills sixty megabytes that nobody has touched yet.
;;!row: 1
;;!attack: 503 WL
;;!limit: time
;;!limits: {memory: 64MiB}

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 900)))
    (loop $again
      (memory.fill (i32.const 65536) (i32.const 1) (i32.mul (i32.const 65536) (i32.sub (memory.size) (i32.const 1))))
      (br $again))))
  (i32.const 0))
