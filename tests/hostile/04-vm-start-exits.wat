;; proxy_on_vm_start ends the program.
;;!row: 4
;;!refused: exited with code 0

(func (export "proxy_on_vm_start") (param i32 i32) (result i32)
  (call $exit (i32.const 0)) (i32.const 0))
