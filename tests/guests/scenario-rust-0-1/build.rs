//! The crate `proxy-wasm` 0.1 declares the host's functions without saying that they are imports: the linker has to take
//! what it does not find for one.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32") {
        println!("cargo::rustc-link-arg-cdylib=--allow-undefined");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
