;; Removes what a request needs, one by one and all at once: it stays.
;;!row: 16
;;!attack: 200
;;!said: 0 0 0 0 0
;;!upstream: kept

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $remove (i32.const 0) (i32.const 64) (i32.const 5)))
    (call $say (call $remove (i32.const 0) (i32.const 72) (i32.const 7)))
    (call $say (call $remove (i32.const 0) (i32.const 80) (i32.const 10)))
    (call $say (call $remove (i32.const 0) (i32.const 104) (i32.const 7)))
    (call $say (call $set_pairs (i32.const 0) (i32.const 1024) (i32.const 37)))))
  (i32.const 0))
;; All but two fields: x-attack, which the response's callback looks for, and x-a.
(data (i32.const 1024) "\02\00\00\00\08\00\00\00\01\00\00\00\03\00\00\00\01\00\00\00x-attack\001\00x-a\001\00")
