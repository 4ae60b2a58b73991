;; A local response with a length of its own, a transfer coding and a pseudo header among its fields.
;;!row: 22
;;!attack: 418
;;!skip: no
;;!without: transfer-encoding

(data (i32.const 1024) "\03\00\00\00\0e\00\00\00\03\00\00\00\11\00\00\00\07\00\00\00\07\00\00\00\03\00\00\00content-length\00999\00transfer-encoding\00chunked\00:status\00200\00")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (drop (call $answer (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 8) (i32.const 1024) (i32.const 85) (i32.const -1)))))
  (i32.const 0))
