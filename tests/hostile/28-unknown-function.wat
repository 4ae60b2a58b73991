;; A function that no host offers: the module loads, is reported, and the call is answered with UNIMPLEMENTED.
;;!row: 28
;;!attack: 200
;;!unknown: env.proxy_take_over

(module
  (import "env" "proxy_take_over" (func $take_over (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 4096))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (if (i32.ne (call $take_over (i32.const 1)) (i32.const 12)) (then unreachable))
    (i32.const 0)))
