;; The module's start function traps, before the host has seen anything else of it.
;;!row: 3
;;!refused: trapped

(func $start unreachable)
(start $start)
