;; Everything is tried when the exchange is over, in on_log and on_delete. Nobody is there to hear of it, and nothing happens.
;;!row: 12
;;!attack: 200
;;!calls: 0

(func $everything
  (drop (call $add (i32.const 0) (i32.const 112) (i32.const 3) (i32.const 112) (i32.const 3)))
  (drop (call $set_pairs (i32.const 2) (i32.const 0) (i32.const 0)))
  (drop (call $set_buffer (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 112) (i32.const 3)))
  (drop (call $resume (i32.const 0)))
  (drop (call $resume (i32.const 1)))
  (drop (call $close (i32.const 1)))
  (drop (call $answer (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
    (i32.const 0) (i32.const 0) (i32.const -1)))
  (drop (call $done)))
(func (export "proxy_on_log") (param i32) (call $everything))
(func (export "proxy_on_delete") (param i32) (call $everything))
