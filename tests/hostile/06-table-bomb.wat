;; Grows its table until it gets no more.
;;!row: 6
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 50000
;;!limit: table

(table $table 0 funcref)
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (loop $more
      (br_if $more (i32.ne (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1))))
    (call $say (table.size $table))))
  (i32.const 0))
