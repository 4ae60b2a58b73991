;; A reactor's _initialize loops.
;;!row: 3
;;!refused: ran longer than

(func (export "_initialize") (loop $again (br $again)))
