;; What is exported as memory is a function.
;;!row: 29
;;!refused: exports no memory

(module
  (func (export "memory"))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 4096)))
