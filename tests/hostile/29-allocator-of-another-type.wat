;; An allocator that cannot be called.
;;!row: 29
;;!refused: proxy_on_memory_allocate or malloc

(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i64) (result i64) (i64.const 4096)))
