;; Properties that hold what is not the filter's: the process's environment, files, other filters' configurations.
;;!row: 34
;;!attack: 200
;;!said: 1 1 1 1 1 1

(data (i32.const 1024) "environment\00HOME")
(data (i32.const 1056) "env\00PATH")
(data (i32.const 1088) "plugin_configuration")
(data (i32.const 1120) "connection\00private_key")
(data (i32.const 1152) "..\00..\00etc\00passwd")
(data (i32.const 1184) "\00\00\00\00")
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (call $attacked) (then
    (call $say (call $property (i32.const 1024) (i32.const 16) (i32.const 8) (i32.const 12)))
    (call $say (call $property (i32.const 1056) (i32.const 8) (i32.const 8) (i32.const 12)))
    (call $say (call $property (i32.const 1088) (i32.const 20) (i32.const 8) (i32.const 12)))
    (call $say (call $property (i32.const 1120) (i32.const 22) (i32.const 8) (i32.const 12)))
    (call $say (call $property (i32.const 1152) (i32.const 17) (i32.const 8) (i32.const 12)))
    (call $say (call $property (i32.const 1184) (i32.const 4) (i32.const 8) (i32.const 12)))))
  (i32.const 0))
