;; Asks for the stream's end, of both directions, and fails in the same callback. Where the exchange goes on without the
;; filter, it has no say any more.
;;!row: 22
;;!ask: large
;;!attack: 503 WT

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (call $close (i32.const 0)))
    (drop (call $close (i32.const 1)))
    unreachable))
  (i32.const 0))
