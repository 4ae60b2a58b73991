;; More tables than a module may have.
;;!row: 6
;;!refused: table

(table 1 funcref)
(table 1 funcref)
(table 1 funcref)
(table 1 funcref)
(table 1 funcref)
