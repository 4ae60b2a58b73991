;; proxy_on_configure never returns.
;;!row: 4
;;!refused: ran longer than

(func (export "proxy_on_configure") (param i32 i32) (result i32)
  (loop $again (br $again)) (i32.const 0))
