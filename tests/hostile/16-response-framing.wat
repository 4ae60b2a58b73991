;; The same on the way back: the answer is whole.
;;!row: 16
;;!attack: 200
;;!said: 0 0 0 2 0
;;!without: upgrade

(data (i32.const 1024) "transfer-encoding")
(data (i32.const 1048) "gzip, chunked")
(data (i32.const 1064) "connection")
(data (i32.const 1080) "close")
(data (i32.const 1096) "upgrade")
(data (i32.const 1104) "websocket")
(data (i32.const 1128) "-5")
(data (i32.const 1136) "999999")
(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $add (i32.const 2) (i32.const 1024) (i32.const 17) (i32.const 1048) (i32.const 13)))
    (call $say (call $add (i32.const 2) (i32.const 1064) (i32.const 10) (i32.const 1080) (i32.const 5)))
    (call $say (call $add (i32.const 2) (i32.const 1096) (i32.const 7) (i32.const 1104) (i32.const 9)))
    (call $say (call $add (i32.const 2) (i32.const 128) (i32.const 14) (i32.const 1128) (i32.const 2)))
    (call $say (call $replace (i32.const 2) (i32.const 128) (i32.const 14) (i32.const 1136) (i32.const 6)))))
  (call $speak)
  (i32.const 0))
