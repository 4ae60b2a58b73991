;; Takes all it can get, writes to every page of it, and goes on: 16 MiB, which it may. The next request finds no more.
;;!row: 5
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 256
;;!limit: memory

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (loop $more
      (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then
        (i32.store8 (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 1)) (i32.const 1))
        (br $more))))
    (call $say (memory.size))))
  (i32.const 0))
