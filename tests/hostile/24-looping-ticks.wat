;; Every tick loops. The plugin is started again each time, until it has failed too often.
;;!row: 24
;;!attack: 200|503
;;!limit: crashes
;;!cause: deadline
;;!next: 200|503
;;!traps: any
;;!skip: no

(func (export "proxy_on_configure") (param i32 i32) (result i32)
  (drop (call $tick (i32.const 1)))
  (i32.const 1))
(func (export "proxy_on_tick") (param i32) (loop $again (br $again)))
