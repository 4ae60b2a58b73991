;; Plain SIMD, bulk memory, several tables of functions and several results stay on.
;;!row: 32
;;!attack: 200

(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 4096))
  (table 2 funcref)
  (table 1 funcref)
  (func $two (result i32 i32) (i32.const 0) (i32.const 1))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (memory.fill (i32.const 1024) (i32.const 7) (i32.const 100))
    (drop (i32x4.extract_lane 0 (i32x4.add (v128.load (i32.const 1024)) (v128.load (i32.const 1040)))))
    (drop (call $two))))
