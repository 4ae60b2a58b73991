// The filter of ../hello-filter in AssemblyScript: it answers `/hello` by itself, and signs every response.
//
// Proxy-Wasm is functions that the host has (imports from `env`) and functions that the module has (exports). A filter
// without an SDK needs only those that it uses.

// @ts-ignore: decorator
@external("env", "proxy_get_buffer_bytes")
declare function proxy_get_buffer_bytes(buffer: u32, start: u32, most: u32, address: usize, size: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_get_header_map_value")
declare function proxy_get_header_map_value(map: u32, key: usize, keySize: usize, address: usize, size: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_replace_header_map_value")
declare function proxy_replace_header_map_value(map: u32, key: usize, keySize: usize, value: usize, size: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_send_local_response")
declare function proxy_send_local_response(
  status: u32, details: usize, detailsSize: usize, body: usize, bodySize: usize, headers: usize, headersSize: usize,
  grpcStatus: i32): u32;

const OK: u32 = 0;
const CONTINUE: u32 = 0;
const PAUSE: u32 = 1;
const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;
const PLUGIN_CONFIGURATION: u32 = 7;

/** Where the host writes an address and a size. */
const ADDRESS = memory.data(8);
const SIZE = memory.data(8);

let greeting = "";

export function proxy_abi_version_0_2_1(): void {}

/** Memory for what the host hands over: outside of what is collected, until `given` has copied it. */
export function malloc(size: usize): usize {
  return heap.alloc(size);
}

/** What the host has just handed over, as text. */
function given(): string {
  const address = load<usize>(ADDRESS);
  const text = String.UTF8.decodeUnsafe(address, load<usize>(SIZE));
  heap.free(address);
  return text;
}

/** The configuration is the greeting. 0 refuses it. */
export function proxy_on_configure(plugin: u32, size: u32): u32 {
  if (size == 0 || proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size, ADDRESS, SIZE) != OK) {
    return 0;
  }
  greeting = given();
  return 1;
}

export function proxy_on_request_headers(context: u32, count: u32, end: u32): u32 {
  const path = header(REQUEST_HEADERS, ":path");
  if (path != "/hello" && !path.startsWith("/hello?")) {
    return CONTINUE;
  }
  answer(200, `${greeting}, ${parameter(path, "name", "world")}!\n`);
  return PAUSE;
}

export function proxy_on_response_headers(context: u32, count: u32, end: u32): u32 {
  setHeader(RESPONSE_HEADERS, "x-served-by", "assemblyscript");
  return CONTINUE;
}

/** A field's value; empty if it is not there. */
function header(map: u32, name: string): string {
  const key = String.UTF8.encode(name);
  const status = proxy_get_header_map_value(map, changetype<usize>(key), key.byteLength, ADDRESS, SIZE);
  return status == OK && load<usize>(SIZE) > 0 ? given() : "";
}

function setHeader(map: u32, name: string, value: string): void {
  const key = String.UTF8.encode(name);
  const bytes = String.UTF8.encode(value);
  proxy_replace_header_map_value(map, changetype<usize>(key), key.byteLength, changetype<usize>(bytes), bytes.byteLength);
}

function answer(status: u32, text: string): void {
  const body = String.UTF8.encode(text);
  proxy_send_local_response(status, 0, 0, changetype<usize>(body), body.byteLength, 0, 0, -1);
}

/** A parameter of the query, decoded. */
function parameter(path: string, name: string, otherwise: string): string {
  const parts = path.substring(path.indexOf("?") + 1).split("&");
  for (let i = 0; i < parts.length; i++) {
    if (parts[i].startsWith(name + "=")) {
      return decoded(parts[i].substring(name.length + 1));
    }
  }
  return otherwise;
}

/** `Zo%C3%AB+x` is `Zoë x`. What is no escape stays as it is: `decodeURIComponent` would trap. */
function decoded(text: string): string {
  const bytes = Uint8Array.wrap(String.UTF8.encode(text));
  let to = 0;
  for (let i = 0; i < bytes.length; i++) {
    const high = bytes[i] == 0x25 && i + 2 < bytes.length ? digit(bytes[i + 1]) : -1;
    const low = high >= 0 ? digit(bytes[i + 2]) : -1;
    bytes[to++] = low >= 0 ? u8(high * 16 + low) : bytes[i] == 0x2b ? 0x20 : bytes[i];
    i += low >= 0 ? 2 : 0;
  }
  return String.UTF8.decode(bytes.buffer.slice(0, to));
}

function digit(byte: u8): i32 {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}
