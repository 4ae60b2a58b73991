;; Empty messages without end on a gRPC stream: they wait as if each had 64 bytes, and when that is too much they are refused.
;;!row: 21
;;!limits: {grpc_queue: 64KiB, time: 100ms}
;;!attack: 200
;;!limit: grpc_queue

(module
  (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_grpc_stream"
    (func $grpc_stream (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_grpc_send" (func $grpc_send (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 8192))
  (data (i32.const 16) "x-attack")
  (data (i32.const 48) "one")
  (data (i32.const 64) "hostile.Service")
  (data (i32.const 96) "Nothing")
  (func $send (result i32)
    (call $grpc_send (i32.load (i32.const 4)) (i32.const 0) (i32.const 0) (i32.const 0)))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (local $left i32)
    (if (i32.eqz (call $get (i32.const 0) (i32.const 16) (i32.const 8) (i32.const 8) (i32.const 12))) (then
      (if (call $grpc_stream (i32.const 48) (i32.const 3) (i32.const 64) (i32.const 15) (i32.const 96) (i32.const 7)
            (i32.const 0) (i32.const 0) (i32.const 4))
        (then unreachable))
      (local.set $left (i32.const 1024))
      (loop $next
        (if (call $send) (then unreachable))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br_if $next (local.get $left)))
      (if (i32.ne (call $send) (i32.const 2)) (then unreachable))))
    (i32.const 0)))
