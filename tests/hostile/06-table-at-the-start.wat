;; A table that is too large from the start.
;;!row: 6
;;!refused: table

(table 60000 funcref)
