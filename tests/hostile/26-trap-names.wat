;; Traps in functions one of whose names looks like another line and turns a terminal's colours on, and the other would be a
;; megabyte long if it were written out.
;;!row: 26
;;!attack: 503 WT
;;!cause: trap
;;!log: forged\nERROR
;;!log-without: ESC

(func $long (@name "_RMC0FGZZZ_Eu") unreachable)
(func $forged (@name "forged\0aERROR filter failed\1b[31m") (call $long))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then (call $forged)))
  (i32.const 0))
