;; Header maps that are not whole and exact: each is refused as a whole, and the map stays as it was.
;;!row: 14
;;!attack: 200
;;!said: 2 2 2 2 2 2 2 2 2 2 2
;;!upstream: kept

(data (i32.const 1024) "\01\00\00\00") ;; count without pairs
(data (i32.const 1088) "\ff\ff\ff\ff") ;; count of four thousand million
(data (i32.const 1152) "\01\00\00") ;; half a count
(data (i32.const 1216) "\01\00\00\00\ff\00\00\00\01\00\00\00a\00b\00") ;; length beyond the end
(data (i32.const 1280) "\01\00\00\00\ff\ff\ff\ff\01\00\00\00a\00b\00") ;; negative length
(data (i32.const 1344) "\01\00\00\00\01\00\00\00\01\00\00\00axb\00") ;; no NUL after the name
(data (i32.const 1408) "\01\00\00\00\01\00\00\00\01\00\00\00a\00bx") ;; no NUL after the value
(data (i32.const 1472) "\01\00\00\00\01\00\00\00\01\00\00\00a\00b\00\00") ;; a byte too many
(data (i32.const 1536) "\02\00\00\00\01\00\00\00\01\00\00\00a\00b\00") ;; two pairs promised, one there
(data (i32.const 1600) "\02\00\00\00\01\00\00\00\01\00\00\00\01\00\00\00\01\00\00\00a\00b\00\0a\00b\00") ;; a good pair, then a bad one
(data (i32.const 1664) "\01\04\00\00") ;; more pairs than there may be
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $set_pairs (i32.const 0) (i32.const 1024) (i32.const 4)))
    (call $say (call $set_pairs (i32.const 0) (i32.const 1088) (i32.const 4)))
    (call $say (call $set_pairs (i32.const 0) (i32.const 1152) (i32.const 3)))
    (call $say (call $set_pairs (i32.const 0) (i32.const 1216) (i32.const 16)))
    (call $say (call $set_pairs (i32.const 0) (i32.const 1280) (i32.const 16)))
    (call $say (call $set_pairs (i32.const 0) (i32.const 1344) (i32.const 16)))
    (call $say (call $set_pairs (i32.const 0) (i32.const 1408) (i32.const 16)))
    (call $say (call $set_pairs (i32.const 0) (i32.const 1472) (i32.const 17)))
    (call $say (call $set_pairs (i32.const 0) (i32.const 1536) (i32.const 16)))
    (call $say (call $set_pairs (i32.const 0) (i32.const 1600) (i32.const 28)))
    (call $say (call $set_pairs (i32.const 0) (i32.const 1664) (i32.const 8300)))))
  (i32.const 0))
