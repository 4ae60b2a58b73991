// The scenario of tests/guests/scenario-rust-0-2/src/scenario.rs, in AssemblyScript, with the host's functions declared by
// hand. As AssemblyScript's modules do, it has its top level run by WebAssembly's own `start` function, and exports `malloc`
// for the host.

// @ts-ignore: decorator
@external("env", "proxy_log")
declare function proxy_log(level: u32, text: usize, size: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_set_tick_period_milliseconds")
declare function proxy_set_tick_period_milliseconds(period: u32): u32;
// @ts-ignore: decorator
@external("env", "proxy_get_buffer_bytes")
declare function proxy_get_buffer_bytes(buffer: u32, start: u32, length: u32, address: usize, size: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_set_buffer_bytes")
declare function proxy_set_buffer_bytes(buffer: u32, start: u32, length: u32, bytes: usize, size: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_get_header_map_value")
declare function proxy_get_header_map_value(map: u32, key: usize, keySize: usize, address: usize, size: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_add_header_map_value")
declare function proxy_add_header_map_value(map: u32, key: usize, keySize: usize, value: usize, size: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_replace_header_map_value")
declare function proxy_replace_header_map_value(map: u32, key: usize, keySize: usize, value: usize, size: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_remove_header_map_value")
declare function proxy_remove_header_map_value(map: u32, key: usize, keySize: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_get_property")
declare function proxy_get_property(path: usize, pathSize: usize, address: usize, size: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_continue_stream")
declare function proxy_continue_stream(stream: u32): u32;
// @ts-ignore: decorator
@external("env", "proxy_send_local_response")
declare function proxy_send_local_response(
  status: u32, details: usize, detailsSize: usize, body: usize, bodySize: usize, headers: usize, headersSize: usize,
  grpcStatus: i32): u32;
// @ts-ignore: decorator
@external("env", "proxy_http_call")
declare function proxy_http_call(
  cluster: usize, clusterSize: usize, headers: usize, headersSize: usize, body: usize, bodySize: usize, trailers: usize,
  trailersSize: usize, timeout: u32, token: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_get_shared_data")
declare function proxy_get_shared_data(key: usize, keySize: usize, address: usize, size: usize, version: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_set_shared_data")
declare function proxy_set_shared_data(key: usize, keySize: usize, value: usize, size: usize, version: u32): u32;
// @ts-ignore: decorator
@external("env", "proxy_define_metric")
declare function proxy_define_metric(kind: u32, name: usize, nameSize: usize, id: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_increment_metric")
declare function proxy_increment_metric(id: u32, offset: i64): u32;
// @ts-ignore: decorator
@external("env", "proxy_get_metric")
declare function proxy_get_metric(id: u32, value: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_set_effective_context")
declare function proxy_set_effective_context(id: u32): u32;

const OK: u32 = 0;
const CONTINUE: u32 = 0;
const PAUSE: u32 = 1;

const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;
const CALL_RESPONSE_HEADERS: u32 = 6;

const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const CALL_RESPONSE_BODY: u32 = 4;
const PLUGIN_CONFIGURATION: u32 = 7;

const TICKS = "scenario.ticks";

/** Where the host writes an address, a size, a number. */
const ADDRESS = memory.data(8);
const SIZE = memory.data(8);
const NUMBER = memory.data(8);

export function malloc(size: usize): usize {
  return heap.alloc(size);
}

export function proxy_abi_version_0_2_0(): void {}

/** For hosts that do not offer `env.abort`: the compiler can be told to use this instead. */
export function abortOfItsOwn(message: string | null, file: string | null, line: u32, column: u32): void {
  unreachable();
}

function bytes(text: string): ArrayBuffer {
  return String.UTF8.encode(text);
}

function at(buffer: ArrayBuffer): usize {
  return changetype<usize>(buffer);
}

/** What the host gave, as it is. */
function given(): ArrayBuffer {
  const size = load<usize>(SIZE);
  const buffer = new ArrayBuffer(i32(size));
  if (size > 0) {
    const address = load<usize>(ADDRESS);
    memory.copy(at(buffer), address, size);
    heap.free(address);
  }
  return buffer;
}

function givenText(): string {
  return String.UTF8.decode(given());
}

function remove(map: u32, name: string): void {
  const key = bytes(name);
  proxy_remove_header_map_value(map, at(key), key.byteLength);
}

function replace(map: u32, name: string, text: string): void {
  const key = bytes(name);
  const value = bytes(text);
  proxy_replace_header_map_value(map, at(key), key.byteLength, at(value), value.byteLength);
}

function add(map: u32, name: string, text: string): void {
  const key = bytes(name);
  const value = bytes(text);
  proxy_add_header_map_value(map, at(key), key.byteLength, at(value), value.byteLength);
}

function property(path: string): ArrayBuffer {
  const name = bytes(path);
  if (proxy_get_property(at(name), name.byteLength, ADDRESS, SIZE) != OK) return new ArrayBuffer(0);
  return given();
}

/** A serialized map: number of pairs, their lengths, then names and values, each ended by a NUL. */
function pairs(texts: string[]): ArrayBuffer {
  let size = 4;
  for (let i = 0; i < texts.length; i++) size += 4 + String.UTF8.byteLength(texts[i]) + 1;
  const buffer = new ArrayBuffer(size);
  store<u32>(at(buffer), texts.length / 2);
  let place = at(buffer) + 4 + 4 * texts.length;
  for (let i = 0; i < texts.length; i++) {
    const text = bytes(texts[i]);
    store<u32>(at(buffer) + 4 + 4 * i, text.byteLength);
    memory.copy(place, at(text), text.byteLength);
    place += text.byteLength + 1;
  }
  return buffer;
}

class Stream {
  token: u32 = 0;
  path: string = "";
  constructor(public id: u32) {}
}

const streams = new Map<u32, Stream>();
let cluster: ArrayBuffer = new ArrayBuffer(0);
let counter: u32 = 0;

export function proxy_on_context_create(id: u32, parent: u32): void {
  if (parent != 0) streams.set(id, new Stream(id));
}

export function proxy_on_configure(id: u32, size: u32): u32 {
  if (proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size, ADDRESS, SIZE) != OK) return 0;
  cluster = given();
  proxy_set_tick_period_milliseconds(10);
  const name = bytes("scenario_requests");
  const defined = proxy_define_metric(0, at(name), name.byteLength, NUMBER);
  counter = load<u32>(NUMBER);
  return defined == OK ? 1 : 0;
}

export function proxy_on_tick(id: u32): void {
  const key = bytes(TICKS);
  while (true) {
    let ticks: u64 = 0;
    let version: u32 = 0;
    if (proxy_get_shared_data(at(key), key.byteLength, ADDRESS, SIZE, NUMBER) == OK) {
      ticks = U64.parseInt(givenText());
      version = load<u32>(NUMBER);
    }
    const value = bytes((ticks + 1).toString());
    if (proxy_set_shared_data(at(key), key.byteLength, at(value), value.byteLength, version) == OK) return;
  }
}

export function proxy_on_request_headers(id: u32, count: u32, isLast: u32): u32 {
  const stream = streams.get(id);
  proxy_increment_metric(counter, 1);
  remove(REQUEST_HEADERS, "x-remove");
  remove(REQUEST_HEADERS, "content-length");
  replace(REQUEST_HEADERS, "x-set", "new");
  add(REQUEST_HEADERS, "x-add", "second");
  stream.path = String.UTF8.decode(property("request\0path"));
  if (stream.path.startsWith("/deny")) {
    const headers = pairs(["x-denied", "yes"]);
    const body = bytes("denied");
    proxy_send_local_response(403, 0, 0, at(body), body.byteLength, at(headers), headers.byteLength, -1);
    return PAUSE;
  }
  if (stream.path.startsWith("/call")) {
    const head = pairs([":method", "GET", ":path", "/check", ":authority", "called.example"]);
    const called = proxy_http_call(
      at(cluster), cluster.byteLength, at(head), head.byteLength, 0, 0, 0, 0, 5000, NUMBER);
    stream.token = load<u32>(NUMBER);
    return called == OK ? PAUSE : CONTINUE;
  }
  return CONTINUE;
}

export function proxy_on_http_call_response(id: u32, token: u32, headers: u32, size: u32, trailers: u32): void {
  const all = streams.values();
  for (let i = 0; i < all.length; i++) {
    if (all[i].token != token || proxy_set_effective_context(all[i].id) != OK) continue;
    const name = bytes(":status");
    proxy_get_header_map_value(CALL_RESPONSE_HEADERS, at(name), name.byteLength, ADDRESS, SIZE);
    const status = givenText();
    proxy_get_buffer_bytes(CALL_RESPONSE_BODY, 0, size, ADDRESS, SIZE);
    replace(REQUEST_HEADERS, "x-call", status + " " + givenText());
    proxy_continue_stream(0);
  }
}

export function proxy_on_request_body(id: u32, size: u32, isLast: u32): u32 {
  if (isLast == 0) return PAUSE;
  if (proxy_get_buffer_bytes(REQUEST_BODY, 0, size, ADDRESS, SIZE) == OK) {
    const body = bytes(givenText().toUpperCase());
    proxy_set_buffer_bytes(REQUEST_BODY, 0, size, at(body), body.byteLength);
  }
  return CONTINUE;
}

export function proxy_on_response_headers(id: u32, count: u32, isLast: u32): u32 {
  remove(RESPONSE_HEADERS, "content-length");
  replace(RESPONSE_HEADERS, "x-scenario", "done");
  replace(RESPONSE_HEADERS, "x-path", streams.get(id).path);
  const key = bytes(TICKS);
  const found = proxy_get_shared_data(at(key), key.byteLength, ADDRESS, SIZE, NUMBER) == OK;
  if (found) given();
  replace(RESPONSE_HEADERS, "x-ticks", found ? "yes" : "no");
  proxy_get_metric(counter, NUMBER);
  replace(RESPONSE_HEADERS, "x-count", load<u64>(NUMBER).toString());
  return CONTINUE;
}

export function proxy_on_response_body(id: u32, size: u32, isLast: u32): u32 {
  if (isLast != 0) {
    const end = bytes(" [seen]");
    proxy_set_buffer_bytes(RESPONSE_BODY, size, 0, at(end), end.byteLength);
  }
  return CONTINUE;
}

export function proxy_on_log(id: u32): void {
  const code = property("response\0code");
  const number = code.byteLength == 8 ? load<u64>(at(code)) : 0;
  const line = bytes("scenario over " + number.toString() + " done");
  proxy_log(2, at(line), line.byteLength);
}

export function proxy_on_done(id: u32): u32 {
  return 1;
}

export function proxy_on_delete(id: u32): void {
  streams.delete(id);
}
