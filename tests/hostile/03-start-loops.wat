;; The module's start function loops, before the host has seen anything else of it.
;;!row: 3
;;!refused: ran longer than

(func $start (loop $again (br $again)))
(start $start)
