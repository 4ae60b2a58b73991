;; A reactor's _initialize traps.
;;!row: 3
;;!refused: trapped

(func (export "_initialize") unreachable)
