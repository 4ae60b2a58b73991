;; The plugin's own context cannot be made.
;;!row: 4
;;!refused: trapped

(func (export "proxy_on_context_create") (param i32 i32) unreachable)
