;; No memory to exchange anything in.
;;!row: 29
;;!refused: exports no memory

(module
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 4096)))
