;; A feature that is switched off: gc.
;;!row: 32
;;!refused:

(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 4096))
  (type $pair (struct (field i32) (field i32)))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (struct.get $pair 0 (struct.new $pair (i32.const 0) (i32.const 1)))))
