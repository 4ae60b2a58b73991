;; Takes memory until there is none left, and gives up as an allocator does.
;;!row: 5
;;!limits: {time: 100ms}
;;!attack: 503 WL
;;!limit: memory
;;!cause: limit

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    unreachable))
  (i32.const 0))
