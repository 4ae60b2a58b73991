;; proxy_on_configure answers false.
;;!row: 4
;;!refused: proxy_on_configure refused the configuration

(func (export "proxy_on_configure") (param i32 i32) (result i32)
  (i32.const 0))
