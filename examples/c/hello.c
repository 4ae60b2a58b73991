// The filter of ../hello-filter in C, without a library: it answers `/hello` by itself, and signs every response.
//
// Proxy-Wasm is functions that the host has (imports from `env`) and functions that the module has (exports). A filter
// without an SDK needs only those that it uses.

typedef unsigned int u32;
typedef __SIZE_TYPE__ size_t;

#define HOST(name) __attribute__((import_module("env"), import_name(#name))) u32 name
#define GUEST(name) __attribute__((export_name(#name)))

HOST(proxy_get_buffer_bytes)(u32 buffer, size_t start, size_t most, const char **bytes, size_t *size);
HOST(proxy_get_header_map_value)(u32 map, const char *key, size_t key_size, const char **value, size_t *size);
HOST(proxy_replace_header_map_value)(u32 map, const char *key, size_t key_size, const char *value, size_t size);
HOST(proxy_send_local_response)(u32 status, const char *details, size_t details_size, const char *body, size_t body_size,
                                const char *headers, size_t headers_size, int grpc_status);

enum { OK = 0, CONTINUE = 0, PAUSE = 1 };
enum { REQUEST_HEADERS = 0, RESPONSE_HEADERS = 2, PLUGIN_CONFIGURATION = 7 };

#define TEXT(literal) (literal), (sizeof(literal) - 1)

// What the host hands over in a callback, and what we make of it, is used in that callback and never again: one piece of
// memory serves all of them, from its beginning each time.
static char memory[128 * 1024];
static size_t used;

GUEST(proxy_on_memory_allocate) void *allocate(size_t size) {
    if (size > sizeof(memory) - used) {
        return 0; // The host takes that as a failure of the call that wanted it.
    }
    void *piece = memory + used;
    used += size;
    return piece;
}

static char greeting[256];
static size_t greeting_size;

GUEST(proxy_abi_version_0_2_1) void abi_version(void) {}

// The configuration is the greeting. 0 refuses it.
GUEST(proxy_on_configure) u32 configure(u32 plugin, size_t size) {
    const char *text = 0;
    used = 0;
    if (size == 0 || size > sizeof(greeting) ||
        proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size, &text, &greeting_size) != OK) {
        return 0;
    }
    for (size_t i = 0; i < greeting_size; i++) {
        greeting[i] = text[i];
    }
    return 1;
}

// Whether `text` begins with `prefix`.
static int begins(const char *text, size_t size, const char *prefix, size_t prefix_size) {
    for (size_t i = 0; i < prefix_size; i++) {
        if (i >= size || text[i] != prefix[i]) {
            return 0;
        }
    }
    return 1;
}

static int digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// The value of `name` in a query, decoded in its place; `world` if it is not there.
static const char *name_of(char *query, size_t size, size_t *found) {
    for (size_t at = 0; at < size; at++) {
        if ((at == 0 || query[at - 1] == '&') && begins(query + at, size - at, TEXT("name="))) {
            char *value = query + at + 5;
            size_t left = size - at - 5, to = 0;
            for (size_t i = 0; i < left && value[i] != '&'; i++) {
                int high = value[i] == '%' && i + 2 < left ? digit(value[i + 1]) : -1;
                int low = high >= 0 ? digit(value[i + 2]) : -1;
                value[to++] = low >= 0 ? (char)(high * 16 + low) : value[i] == '+' ? ' ' : value[i];
                i += low >= 0 ? 2 : 0;
            }
            *found = to;
            return value;
        }
    }
    *found = 5;
    return "world";
}

static void append(char *to, size_t *size, const char *text, size_t text_size) {
    for (size_t i = 0; i < text_size; i++) {
        to[(*size)++] = text[i];
    }
}

GUEST(proxy_on_request_headers) u32 request_headers(u32 context, u32 count, u32 end) {
    const char *path = 0;
    size_t size = 0;
    used = 0;
    if (proxy_get_header_map_value(REQUEST_HEADERS, TEXT(":path"), &path, &size) != OK ||
        !begins(path, size, TEXT("/hello")) || (size > 6 && path[6] != '?')) {
        return CONTINUE;
    }
    size_t name_size = 0, body_size = 0;
    const char *name = name_of((char *)path + 7, size > 7 ? size - 7 : 0, &name_size);
    char *body = allocate(greeting_size + name_size + 4);
    if (!body) {
        proxy_send_local_response(414, TEXT("name_too_long"), TEXT("too long\n"), 0, 0, -1);
        return PAUSE;
    }
    append(body, &body_size, greeting, greeting_size);
    append(body, &body_size, TEXT(", "));
    append(body, &body_size, name, name_size);
    append(body, &body_size, TEXT("!\n"));
    proxy_send_local_response(200, TEXT("hello"), body, body_size, 0, 0, -1);
    return PAUSE;
}

GUEST(proxy_on_response_headers) u32 response_headers(u32 context, u32 count, u32 end) {
    proxy_replace_header_map_value(RESPONSE_HEADERS, TEXT("x-served-by"), TEXT("c"));
    return CONTINUE;
}
