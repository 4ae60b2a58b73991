;; on_done answers false, for ever: the exchange ends all the same, and the context some seconds later.
;;!row: 23
;;!attack: 200

(func (export "proxy_on_done") (param i32) (result i32) (i32.const 0))
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
