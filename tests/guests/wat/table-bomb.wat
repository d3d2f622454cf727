;; A filter that makes its table larger until that is refused, and then traps.
(component
  ;; The contract, as wit/event and wit/subscriber have it.
  (import "cdc:event/types@1.0.0" (instance $types
    (type $sequence' u64)
    (export "sequence" (type $sequence (eq $sequence')))
    (type $timestamp' u64)
    (export "timestamp-ms" (type $timestamp (eq $timestamp')))
    (type $operation' (enum "insert" "update" "delete" "truncate"))
    (export "operation" (type $operation (eq $operation')))
    (type $json' string)
    (export "json" (type $json (eq $json')))
    (type $origin' (record
      (field "source" string) (field "transaction" (option string)) (field "position" (option string))
      (field "snapshot" bool)))
    (export "origin" (type $origin (eq $origin')))
    (type $event' (record
      (field "sequence" $sequence) (field "id" string) (field "timestamp" $timestamp) (field "table" string)
      (field "key" string) (field "operation" $operation) (field "before" (option $json)) (field "after" (option $json))
      (field "schema-version" u32) (field "origin" (option $origin))))
    (export "event" (type (eq $event')))))
  (alias export $types "sequence" (type $sequence))
  (alias export $types "timestamp-ms" (type $timestamp-ms))
  (alias export $types "operation" (type $operation))
  (alias export $types "json" (type $json))
  (alias export $types "origin" (type $origin))
  (alias export $types "event" (type $event))

  (core module $code
    (memory (export "memory") 1)
    (table $table 1 funcref)
    ;; Memory is given out from here on, and taken back as a whole after each call.
    (global $free (mut i32) (i32.const 1024))

    (func $realloc (export "realloc") (param $old i32) (param $old-bytes i32) (param $align i32) (param $bytes i32)
      (result i32)
      (local $start i32)
      ;; Everything begins at a multiple of 8, the largest alignment there is.
      (local.set $start (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $start) (local.get $bytes)))
      (block $fits
        (loop $grow
          (br_if $fits (i32.le_u (global.get $free) (i32.mul (memory.size) (i32.const 65536))))
          (br_if $grow (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))
          unreachable))
      (local.get $start))

    (func (export "accept") (param $events i32) (param $count i32) (result i32)
      ;; As large as it gets; then it gives up.
      (loop $again
        (br_if $again (i32.ne (table.grow $table (ref.null func) (i32.const 100000)) (i32.const -1))))
      unreachable)

    (func (export "accepted") (param i32)
      (global.set $free (i32.const 1024))))
  (core instance $code (instantiate $code))
  (alias core export $code "memory" (core memory $memory))
  (alias core export $code "realloc" (core func $realloc))

  (func $accept (param "events" (list $event)) (result (list bool))
    (canon lift (core func $code "accept") (memory $memory) (realloc $realloc) (post-return (core func $code "accepted"))))
  ;; An exported function may name none but imported or exported types, so they go in once more.
  (component $filtering
    (type $sequence' u64)
    (import "sequence" (type $sequence (eq $sequence')))
    (type $timestamp' u64)
    (import "timestamp-ms" (type $timestamp (eq $timestamp')))
    (type $operation' (enum "insert" "update" "delete" "truncate"))
    (import "operation" (type $operation (eq $operation')))
    (type $json' string)
    (import "json" (type $json (eq $json')))
    (type $origin' (record
      (field "source" string) (field "transaction" (option string)) (field "position" (option string))
      (field "snapshot" bool)))
    (import "origin" (type $origin (eq $origin')))
    (type $event' (record
      (field "sequence" $sequence) (field "id" string) (field "timestamp" $timestamp) (field "table" string)
      (field "key" string) (field "operation" $operation) (field "before" (option $json)) (field "after" (option $json))
      (field "schema-version" u32) (field "origin" (option $origin))))
    (import "event" (type $event (eq $event')))
    (import "accept" (func $accept (param "events" (list $event)) (result (list bool))))
    (export $exported "event" (type $event))
    (export "accept" (func $accept) (func (param "events" (list $exported)) (result (list bool)))))
  (instance $filtering (instantiate $filtering
    (with "sequence" (type $sequence))
    (with "timestamp-ms" (type $timestamp-ms))
    (with "operation" (type $operation))
    (with "json" (type $json))
    (with "origin" (type $origin))
    (with "event" (type $event))
    (with "accept" (func $accept))))
  (export "cdc:subscriber/filtering@1.0.0" (instance $filtering)))
