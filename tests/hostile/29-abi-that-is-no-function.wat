;; The ABI's marker is a memory.
;;!row: 29
;;!refused: not a Proxy-Wasm module

(module
  (memory (export "memory") (export "proxy_abi_version_0_2_1") 1)
  (func (export "malloc") (param i32) (result i32) (i32.const 4096)))
