;; proxy_on_vm_start answers false.
;;!row: 4
;;!refused: proxy_on_vm_start refused the configuration

(func (export "proxy_on_vm_start") (param i32 i32) (result i32)
  (i32.const 0))
