;; gRPC calls with 30,000 bytes each: two are made, and there is no room for what the others would send.
;;!row: 21
;;!limits: {call_bytes: 64KiB}
;;!attack: 200
;;!said: 2 10
;;!limit: call_bytes

(data (i32.const 1024) "hostile.Service")
(data (i32.const 1056) "Much")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $left i32) (local $made i32) (local $status i32)
  (if (call $attacked) (then
    (local.set $left (i32.const 6))
    (loop $next
      (local.set $status (call $grpc_call (i32.const 48) (i32.const 3) (i32.const 1024) (i32.const 15)
        (i32.const 1056) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 8192) (i32.const 30000)
        (i32.const 5000) (i32.const 8)))
      (local.set $made (i32.add (local.get $made) (i32.eqz (local.get $status))))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))
    (call $say (local.get $made))
    (call $say (local.get $status))))
  (i32.const 0))
