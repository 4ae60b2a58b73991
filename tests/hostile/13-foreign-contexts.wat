;; Chooses every context from 0 to 3000 to act on, and -1: it may have its own two, the plugin's and the stream's.
;;!row: 13
;;!limits: {time: 100ms}
;;!attack: 200
;;!said: 2 2 1

(func (export "proxy_on_request_headers") (param $self i32) (param i32 i32) (result i32)
  (local $id i32) (local $mine i32)
  (if (call $attacked) (then
    (loop $next
      (if (i32.eqz (call $effective (local.get $id))) (then
        (local.set $mine (i32.add (local.get $mine) (i32.const 1)))))
      (local.set $id (i32.add (local.get $id) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $id) (i32.const 3000))))
    (call $say (local.get $mine))
    (call $say (call $effective (i32.const -1)))
    (drop (call $effective (local.get $self)))
    (call $say (call $done))))
  (i32.const 0))
