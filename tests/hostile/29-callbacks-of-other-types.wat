;; Callbacks with wrong types are not called.
;;!row: 29
;;!attack: 200

(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 4096))
  (func (export "proxy_on_request_headers") (param f64) (result f64) unreachable)
  (func (export "proxy_on_request_body") (result i64) unreachable)
  (func (export "proxy_on_configure") unreachable)
  (global (export "proxy_on_response_headers") i32 (i32.const 1)))
