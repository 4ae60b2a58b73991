;; What every guest in this folder stands on, unless it is a whole (module …) of its own: the imports under short names,
;; a memory, an allocator that starts over, and a few words. Addresses below 1024 are the frame's; guests' data lies
;; from 1024 on, what the allocator gives from 8192 on. `tests/src/hostile_guests.rs` puts frame and guest together, and exports
;; $allocate and a callback that speaks if the guest has none of its own.

(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
(import "env" "proxy_get_current_time_nanoseconds" (func $time (param i32) (result i32)))
(import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
(import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_header_map_size" (func $map_size (param i32 i32) (result i32)))
(import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
(import "env" "proxy_set_header_map_pairs" (func $set_pairs (param i32 i32 i32) (result i32)))
(import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
(import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_property" (func $set_property (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_continue_stream" (func $resume (param i32) (result i32)))
(import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
(import "env" "proxy_send_local_response" (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
(import "env" "proxy_done" (func $done (result i32)))
(import "env" "proxy_http_call" (func $http_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_grpc_call"
  (func $grpc_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_shared_data" (func $shared (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_shared_data" (func $set_shared (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
(import "env" "proxy_resolve_shared_queue" (func $resolve (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
(import "env" "proxy_dequeue_shared_queue" (func $dequeue (param i32 i32 i32) (result i32)))
(import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
(import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
(import "env" "proxy_get_metric" (func $metric (param i32 i32) (result i32)))
(import "env" "proxy_call_foreign_function" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_open"
  (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "sock_accept" (func $sock_accept (param i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))

(memory (export "memory") 1)
(func (export "proxy_abi_version_0_2_1"))

;; 8, 12: where answers' addresses and sizes go.
(data (i32.const 16) "x-attack")
(data (i32.const 32) "x-said")
(data (i32.const 48) "one")
(data (i32.const 64) ":path")
(data (i32.const 72) ":method")
(data (i32.const 80) ":authority")
(data (i32.const 96) ":status")
(data (i32.const 104) ":scheme")
(data (i32.const 112) "x-a")
(data (i32.const 128) "content-length")
;; The head of a call, 69 bytes: GET /called of authority one.
(data (i32.const 160) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\07\00\00\00\0a\00\00\00\03\00\00\00")
(data (i32.const 188) ":method\00GET\00:path\00/called\00:authority\00one\00")

(global $free (mut i32) (i32.const 8192))
(func $allocate (param $size i32) (result i32)
  (if (i32.gt_u (local.get $size) (i32.const 16384)) (then
    (return (i32.shl
      (memory.grow (i32.add (i32.shr_u (local.get $size) (i32.const 16)) (i32.const 1)))
      (i32.const 16)))))
  (if (i32.gt_u (i32.add (global.get $free) (local.get $size)) (i32.const 65536)) (then
    (global.set $free (i32.const 8192))))
  (global.get $free)
  (global.set $free (i32.add (global.get $free) (local.get $size))))

;; Whether the request is an attack; one that is not passes.
(func $attacked (result i32)
  (i32.eqz (call $get (i32.const 0) (i32.const 16) (i32.const 8) (i32.const 8) (i32.const 12))))

;; Numbers are said with the response's head, in the field x-said, separated by spaces.
(global $said (mut i32) (i32.const 256))
(func $letter (param $letter i32)
  (i32.store8 (global.get $said) (local.get $letter))
  (global.set $said (i32.add (global.get $said) (i32.const 1))))
(func $digits (param $number i32)
  (if (i32.ge_u (local.get $number) (i32.const 10)) (then
    (call $digits (i32.div_u (local.get $number) (i32.const 10)))))
  (call $letter (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10)))))
(func $say (param $number i32)
  (if (i32.gt_u (global.get $said) (i32.const 1000)) (then (return)))
  (if (i32.gt_u (global.get $said) (i32.const 256)) (then (call $letter (i32.const 32))))
  (call $digits (local.get $number)))
(func $speak
  (if (i32.gt_u (global.get $said) (i32.const 256)) (then
    (drop (call $replace (i32.const 2) (i32.const 32) (i32.const 6)
      (i32.const 256) (i32.sub (global.get $said) (i32.const 256))))))
  (global.set $said (i32.const 256)))
