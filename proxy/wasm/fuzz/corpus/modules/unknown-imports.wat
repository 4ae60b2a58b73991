(module
  (import "env" "proxy_new" (func (param i32) (result i32)))
  (import "elsewhere" "thing" (func (param f32 i64) (result f64)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 4096)))
