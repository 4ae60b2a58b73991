;; proxy_on_vm_start never returns.
;;!row: 4
;;!refused: ran longer than

(func (export "proxy_on_vm_start") (param i32 i32) (result i32)
  (loop $again (br $again)) (i32.const 0))
