;; A function of the host with another signature is another function.
;;!row: 28
;;!attack: 200
;;!unknown: env.proxy_log

(module
  (import "env" "proxy_log" (func $log (param i64 i64) (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 4096))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (if (i32.ne (call $log (i64.const 1) (i64.const -1)) (i32.const 12)) (then unreachable))
    (i32.const 0)))
