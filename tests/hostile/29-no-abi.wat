;; A module, but not for a proxy.
;;!row: 29
;;!refused: not a Proxy-Wasm module

(module (memory (export "memory") 1))
