;; A command's _start traps.
;;!row: 3
;;!refused: trapped

(func (export "_start") unreachable)
