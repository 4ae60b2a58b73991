//! A guest written directly on proxy-wasm.
