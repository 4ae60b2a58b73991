;; The same in trailers, which are no place for pseudo headers and framing either.
;;!row: 15
;;!attack: 200
;;!said: 2 2 2 2 2
;;!upstream: kept
;;!without: x-evil

(data (i32.const 1024) "x-evil")
(data (i32.const 1040) "a\0d\0ax-evil2: 1")
(data (i32.const 1056) "a\00b")
(data (i32.const 1072) "x evil")
(data (i32.const 1088) "x-evil\0d\0a")
(func (export "proxy_on_request_trailers") (param i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $add (i32.const 1) (i32.const 1024) (i32.const 6) (i32.const 1040) (i32.const 13)))
    (call $say (call $add (i32.const 1) (i32.const 1024) (i32.const 6) (i32.const 1056) (i32.const 3)))
    (call $say (call $add (i32.const 1) (i32.const 1072) (i32.const 6) (i32.const 1040) (i32.const 1)))
    (call $say (call $add (i32.const 1) (i32.const 1088) (i32.const 8) (i32.const 1040) (i32.const 1)))
    (call $say (call $add (i32.const 1) (i32.const 64) (i32.const 5) (i32.const 1040) (i32.const 1)))))
  (i32.const 0))
