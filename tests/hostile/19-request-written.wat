;; Writes without end into the request's body.
;;!row: 19
;;!attack: 413 WL
;;!traps: 0
;;!skip: no
;;!limit: body

(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
  (local $left i32)
  (if (call $attacked) (then
    (drop (memory.grow (i32.const 2)))
    (local.set $left (i32.const 100))
    (loop $more
      (drop (call $set_buffer (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 65536) (i32.const 65536)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $more (local.get $left)))
    (return (i32.const 1))))
  (i32.const 0))
