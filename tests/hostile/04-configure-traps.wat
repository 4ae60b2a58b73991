;; proxy_on_configure traps.
;;!row: 4
;;!refused: trapped

(func (export "proxy_on_configure") (param i32 i32) (result i32)
  unreachable (i32.const 0))
