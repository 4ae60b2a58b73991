;; Addresses outside of the memory, lengths that leave it, sums that wrap around.
;;!row: 9
;;!attack: 200
;;!said: 6 6 6 6 6 6 6 6 6 6 6 6 6 6 6 21 21 21
;;!upstream: kept
;;!calls: 0

(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $log (i32.const 2) (i32.const -1) (i32.const 4)))
    (call $say (call $log (i32.const 2) (i32.const 60000) (i32.const 2000000000)))
    (call $say (call $log (i32.const 2) (i32.const 0) (i32.const -1)))
    (call $say (call $get (i32.const 0) (i32.const -8) (i32.const 16) (i32.const 8) (i32.const 12)))
    (call $say (call $add (i32.const 0) (i32.const 112) (i32.const 3) (i32.const -1) (i32.const -1)))
    (call $say (call $replace (i32.const 0) (i32.const -1) (i32.const -1) (i32.const 112) (i32.const 3)))
    (call $say (call $remove (i32.const 0) (i32.const 65534) (i32.const 3)))
    (call $say (call $set_pairs (i32.const 0) (i32.const -4) (i32.const 8)))
    (call $say (call $property (i32.const -1) (i32.const 1) (i32.const 8) (i32.const 12)))
    (call $say (call $set_property (i32.const 112) (i32.const 3) (i32.const 65536) (i32.const 1)))
    (call $say (call $answer (i32.const 200) (i32.const -1) (i32.const 5) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))
    (call $say (call $http_call (i32.const -1) (i32.const 3) (i32.const 160) (i32.const 69) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 8)))
    (call $say (call $set_shared (i32.const 112) (i32.const 3) (i32.const -4) (i32.const 8) (i32.const 0)))
    (call $say (call $define (i32.const 0) (i32.const -1) (i32.const 4) (i32.const 8)))
    (call $say (call $foreign (i32.const -1) (i32.const 5) (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 12)))
    (call $say (call $random (i32.const -1) (i32.const 4)))
    (call $say (call $fd_write (i32.const 1) (i32.const -1) (i32.const 1) (i32.const 8)))
    (call $say (call $environ_sizes (i32.const -1) (i32.const 8)))))
  (i32.const 0))
