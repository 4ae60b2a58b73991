;; A feature that is switched off: function references.
;;!row: 32
;;!refused:

(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 4096))
  (type $f (func))
  (func $g)
  (elem declare func $g)
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call_ref $f (ref.func $g)) (i32.const 0)))
