;; Wants more memory from the start than a filter may have.
;;!row: 5
;;!refused: initial memory is more than the 16777216 bytes allowed

(module
  (memory (export "memory") 257)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 8)))
