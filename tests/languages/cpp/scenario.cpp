// The scenario of tests/guests/scenario-rust-0-2/src/scenario.rs, in C++ without a library: the ABI as a C or C++ filter
// sees it. Like filters built with the C++ SDK it exports `malloc` for the host, and `_initialize` runs constructors.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef __SIZE_TYPE__ size_t;

#define HOST(name) extern "C" __attribute__((import_module("env"), import_name(#name))) u32 name
#define GUEST(name) extern "C" __attribute__((export_name(#name)))

HOST(proxy_log)(u32 level, const char *text, size_t size);
HOST(proxy_set_tick_period_milliseconds)(u32 period);
HOST(proxy_get_buffer_bytes)(u32 buffer, u32 start, u32 length, const char **bytes, size_t *size);
HOST(proxy_set_buffer_bytes)(u32 buffer, u32 start, u32 length, const char *bytes, size_t size);
HOST(proxy_get_header_map_value)(u32 map, const char *key, size_t key_size, const char **value, size_t *size);
HOST(proxy_add_header_map_value)(u32 map, const char *key, size_t key_size, const char *value, size_t size);
HOST(proxy_replace_header_map_value)(u32 map, const char *key, size_t key_size, const char *value, size_t size);
HOST(proxy_remove_header_map_value)(u32 map, const char *key, size_t key_size);
HOST(proxy_get_property)(const char *path, size_t path_size, const char **value, size_t *size);
HOST(proxy_continue_stream)(u32 stream);
HOST(proxy_send_local_response)(u32 status, const char *details, size_t details_size, const char *body, size_t body_size,
                                const char *headers, size_t headers_size, u32 grpc_status);
HOST(proxy_http_call)(const char *cluster, size_t cluster_size, const char *headers, size_t headers_size, const char *body,
                      size_t body_size, const char *trailers, size_t trailers_size, u32 timeout, u32 *token);
HOST(proxy_get_shared_data)(const char *key, size_t key_size, const char **value, size_t *size, u32 *version);
HOST(proxy_set_shared_data)(const char *key, size_t key_size, const char *value, size_t size, u32 version);
HOST(proxy_define_metric)(u32 kind, const char *name, size_t name_size, u32 *id);
HOST(proxy_increment_metric)(u32 id, long long offset);
HOST(proxy_get_metric)(u32 id, u64 *value);
HOST(proxy_set_effective_context)(u32 id);

enum { OK = 0 };
enum { CONTINUE = 0, PAUSE = 1 };
enum { REQUEST_HEADERS = 0, RESPONSE_HEADERS = 2, CALL_RESPONSE_HEADERS = 6 };
enum { REQUEST_BODY = 0, RESPONSE_BODY = 1, CALL_RESPONSE_BODY = 4, PLUGIN_CONFIGURATION = 7 };

// Memory: blocks of a fixed size, so that what the host allocates for one exchange serves the next one.
namespace {

const size_t BLOCK = 4096, BLOCKS = 256;
alignas(16) char blocks[BLOCKS][BLOCK];
bool taken[BLOCKS];

} // namespace

GUEST(malloc) void *malloc(size_t size) {
    for (size_t i = 0; size <= BLOCK && i < BLOCKS; i++) {
        if (!taken[i]) {
            taken[i] = true;
            return blocks[i];
        }
    }
    return nullptr;
}

GUEST(free) void free(void *block) {
    if (block) {
        taken[(static_cast<char *>(block) - blocks[0]) / BLOCK] = false;
    }
}

extern "C" void *memcpy(void *to, const void *from, size_t size) {
    for (size_t i = 0; i < size; i++) {
        static_cast<char *>(to)[i] = static_cast<const char *>(from)[i];
    }
    return to;
}

extern "C" void *memset(void *to, int byte, size_t size) {
    for (size_t i = 0; i < size; i++) {
        static_cast<char *>(to)[i] = static_cast<char>(byte);
    }
    return to;
}

namespace {

// Bytes that somebody else owns.
struct Text {
    const char *bytes = nullptr;
    size_t size = 0;

    Text() = default;
    template <size_t N> constexpr Text(const char (&literal)[N]) : bytes(literal), size(N - 1) {}
    Text(const char *bytes, size_t size) : bytes(bytes), size(size) {}

    bool starts_with(Text prefix) const {
        for (size_t i = 0; i < prefix.size; i++) {
            if (i >= size || bytes[i] != prefix.bytes[i]) {
                return false;
            }
        }
        return true;
    }
};

// Bytes from the host, given back in the end.
struct Given : Text {
    u32 status = OK;

    Given() = default;
    Given(const Given &) = delete;
    ~Given() { free(const_cast<char *>(bytes)); }
};

// Text that is put together.
struct Line {
    char bytes[1024];
    size_t size = 0;

    Line &operator+=(Text text) {
        for (size_t i = 0; i < text.size && size < sizeof bytes; i++) {
            bytes[size++] = text.bytes[i];
        }
        return *this;
    }

    Line &operator+=(u64 number) {
        char digits[20];
        size_t count = 0;
        do {
            digits[count++] = static_cast<char>('0' + number % 10);
            number /= 10;
        } while (number);
        while (count) {
            *this += Text(&digits[--count], 1);
        }
        return *this;
    }

    Text text() const { return Text(bytes, size); }
};

// A serialized map: number of pairs, their lengths, then names and values, each ended by a NUL.
template <size_t N> struct Pairs : Line {
    Pairs(const Text (&pairs)[N][2]) {
        word(N);
        for (auto &pair : pairs) {
            word(pair[0].size);
            word(pair[1].size);
        }
        for (auto &pair : pairs) {
            *this += pair[0];
            *this += Text("\0", 1);
            *this += pair[1];
            *this += Text("\0", 1);
        }
    }

    void word(u32 number) { *this += Text(reinterpret_cast<const char *>(&number), sizeof number); }
};

void remove(u32 map, Text name) { proxy_remove_header_map_value(map, name.bytes, name.size); }
void replace(u32 map, Text name, Text value) {
    proxy_replace_header_map_value(map, name.bytes, name.size, value.bytes, value.size);
}
void add(u32 map, Text name, Text value) {
    proxy_add_header_map_value(map, name.bytes, name.size, value.bytes, value.size);
}

const Text TICKS = "scenario.ticks";

struct Stream {
    u32 id;
    u32 token;
    Line path;
};

// The live streams.
struct Streams {
    Stream *places[64];

    Streams() {
        for (auto &place : places) {
            place = nullptr;
        }
    }

    Stream **find(u32 id) {
        for (auto &place : places) {
            if (place ? place->id == id : id == 0) {
                return &place;
            }
        }
        return nullptr;
    }
};

// A constructor has to run for this, and it calls the host: `_initialize` sees to it.
struct Plugin {
    Line cluster;
    u32 counter;
    u32 constructed;
    Streams streams;

    Plugin() : counter(0), constructed(1 + proxy_log(0, "constructed", 11)) {}
};

Plugin plugin;

} // namespace

extern "C" void __wasm_call_ctors();

GUEST(_initialize) void initialize() { __wasm_call_ctors(); }
GUEST(proxy_abi_version_0_2_1) void abi() {}

GUEST(proxy_on_context_create) void on_context_create(u32 id, u32 parent) {
    Stream **place = parent ? plugin.streams.find(0) : nullptr;
    if (place) {
        auto *stream = static_cast<Stream *>(malloc(sizeof(Stream)));
        memset(stream, 0, sizeof(Stream));
        stream->id = id;
        *place = stream;
    }
}

GUEST(proxy_on_vm_start) u32 on_vm_start(u32, u32) { return plugin.constructed == 1; }

GUEST(proxy_on_configure) u32 on_configure(u32, u32 size) {
    Given name;
    name.status = proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size, &name.bytes, &name.size);
    plugin.cluster.size = 0;
    plugin.cluster += name;
    Text metric = "scenario_requests";
    proxy_set_tick_period_milliseconds(10);
    return name.status == OK && proxy_define_metric(0, metric.bytes, metric.size, &plugin.counter) == OK;
}

GUEST(proxy_on_tick) void on_tick(u32) {
    for (;;) {
        Given value;
        u32 version = 0;
        u64 ticks = 0;
        if (proxy_get_shared_data(TICKS.bytes, TICKS.size, &value.bytes, &value.size, &version) == OK) {
            for (size_t i = 0; i < value.size; i++) {
                ticks = ticks * 10 + (value.bytes[i] - '0');
            }
        }
        Line line;
        line += ticks + 1;
        if (proxy_set_shared_data(TICKS.bytes, TICKS.size, line.bytes, line.size, version) == OK) {
            return;
        }
    }
}

GUEST(proxy_on_request_headers) u32 on_request_headers(u32 id, u32, u32) {
    Stream **place = plugin.streams.find(id);
    if (!place) {
        return CONTINUE;
    }
    proxy_increment_metric(plugin.counter, 1);
    remove(REQUEST_HEADERS, "x-remove");
    remove(REQUEST_HEADERS, "content-length");
    replace(REQUEST_HEADERS, "x-set", "new");
    add(REQUEST_HEADERS, "x-add", "second");
    Given path;
    Text name = "request\0path";
    proxy_get_property(name.bytes, name.size, &path.bytes, &path.size);
    (*place)->path += path;
    if (path.starts_with("/deny")) {
        Pairs<1> headers({{"x-denied", "yes"}});
        Text body = "denied";
        proxy_send_local_response(403, nullptr, 0, body.bytes, body.size, headers.bytes, headers.size, -1);
        return PAUSE;
    }
    if (path.starts_with("/call")) {
        Pairs<3> head({{":method", "GET"}, {":path", "/check"}, {":authority", "called.example"}});
        Text cluster = plugin.cluster.text();
        u32 called = proxy_http_call(cluster.bytes, cluster.size, head.bytes, head.size, nullptr, 0, nullptr, 0, 5000,
                                     &(*place)->token);
        return called == OK ? PAUSE : CONTINUE;
    }
    return CONTINUE;
}

GUEST(proxy_on_http_call_response) void on_http_call_response(u32, u32 token, u32, u32 size, u32) {
    for (Stream *stream : plugin.streams.places) {
        if (stream && stream->token == token && proxy_set_effective_context(stream->id) == OK) {
            Given status, body;
            Text name = ":status";
            proxy_get_header_map_value(CALL_RESPONSE_HEADERS, name.bytes, name.size, &status.bytes, &status.size);
            proxy_get_buffer_bytes(CALL_RESPONSE_BODY, 0, size, &body.bytes, &body.size);
            Line line;
            line += status;
            line += " ";
            line += body;
            replace(REQUEST_HEADERS, "x-call", line.text());
            proxy_continue_stream(0);
        }
    }
}

GUEST(proxy_on_request_body) u32 on_request_body(u32, u32 size, u32 is_last) {
    if (!is_last) {
        return PAUSE;
    }
    Given body;
    if (proxy_get_buffer_bytes(REQUEST_BODY, 0, size, &body.bytes, &body.size) == OK) {
        Line upper;
        for (size_t i = 0; i < body.size; i++) {
            char letter = body.bytes[i];
            letter = letter >= 'a' && letter <= 'z' ? static_cast<char>(letter - 'a' + 'A') : letter;
            upper += Text(&letter, 1);
        }
        proxy_set_buffer_bytes(REQUEST_BODY, 0, size, upper.bytes, upper.size);
    }
    return CONTINUE;
}

GUEST(proxy_on_response_headers) u32 on_response_headers(u32 id, u32, u32) {
    remove(RESPONSE_HEADERS, "content-length");
    replace(RESPONSE_HEADERS, "x-scenario", "done");
    if (Stream **place = plugin.streams.find(id)) {
        replace(RESPONSE_HEADERS, "x-path", (*place)->path.text());
    }
    Given ticks;
    u32 version = 0;
    u32 found = proxy_get_shared_data(TICKS.bytes, TICKS.size, &ticks.bytes, &ticks.size, &version);
    replace(RESPONSE_HEADERS, "x-ticks", found == OK ? Text("yes") : Text("no"));
    u64 count = 0;
    proxy_get_metric(plugin.counter, &count);
    Line line;
    line += count;
    replace(RESPONSE_HEADERS, "x-count", line.text());
    return CONTINUE;
}

GUEST(proxy_on_response_body) u32 on_response_body(u32, u32 size, u32 is_last) {
    if (is_last) {
        Text end = " [seen]";
        proxy_set_buffer_bytes(RESPONSE_BODY, size, 0, end.bytes, end.size);
    }
    return CONTINUE;
}

GUEST(proxy_on_log) void on_log(u32) {
    Given code;
    u64 number = 0;
    Text name = "response\0code";
    if (proxy_get_property(name.bytes, name.size, &code.bytes, &code.size) == OK && code.size == sizeof number) {
        memcpy(&number, code.bytes, sizeof number);
    }
    Line line;
    line += "scenario over ";
    line += number;
    line += " done";
    proxy_log(2, line.bytes, line.size);
}

GUEST(proxy_on_done) u32 on_done(u32) { return 1; }

GUEST(proxy_on_delete) void on_delete(u32 id) {
    if (Stream **place = id ? plugin.streams.find(id) : nullptr) {
        free(*place);
        *place = nullptr;
    }
}
