;; A feature that is switched off: threads.
;;!row: 32
;;!refused:

(module
  (memory (export "memory") 1 1 shared)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.atomic.rmw.add (i32.const 0) (i32.const 1))))
