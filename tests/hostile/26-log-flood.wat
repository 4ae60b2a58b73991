;; Five hundred lines, which look like other lines and turn a terminal's colours on. A hundred a second are written, all as text.
;;!row: 26
;;!limits: {time: 100ms}
;;!attack: 200
;;!log: forged\nERROR
;;!log-without: ESC
;;!dropped-lines: yes
;;!limit: log_lines

(data (i32.const 1024) "forged\0aERROR filter failed\1b[31m\07\00")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (local $left i32)
  (if (call $attacked) (then
    (local.set $left (i32.const 500))
    (loop $next
      (drop (call $log (i32.const 4) (i32.const 1024) (i32.const 34)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))))
  (i32.const 0))
