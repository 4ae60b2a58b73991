;; A component, not a module.
;;!row: 29
;;!refused: not a WebAssembly module

(component)
