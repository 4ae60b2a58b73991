;; proxy_on_vm_start traps.
;;!row: 4
;;!refused: trapped

(func (export "proxy_on_vm_start") (param i32 i32) (result i32)
  unreachable (i32.const 0))
