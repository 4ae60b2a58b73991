//! Modules that must not be loaded, given to a running proxy one after the other.

use meshgate_tests::{Backend, HostileGuest, Meshgate, with_custom_section};

use super::arena::{Arena, HEALTHY, answer};

/// What every Proxy-Wasm module has.
const FRAME: &str = "(memory (export \"memory\") 1) (func (export \"proxy_abi_version_0_2_1\"))
    (func (export \"malloc\") (param i32) (result i32) (i32.const 4096))";

/// A module with that and this.
fn assemble(rest: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {FRAME} {rest})")).expect("a module")
}

/// Modules that are too large for text, or no modules at all: a name, the bytes, what the refusal says.
fn made_modules() -> Vec<(String, Vec<u8>, &'static str)> {
    let whole = assemble("");
    let mut made = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>, reason| made.push((name.to_owned(), bytes, reason));
    add("29-empty", Vec::new(), "not a WebAssembly module");
    add("29-text", b"(module)".to_vec(), "not a WebAssembly module");
    add("29-magic-only", whole[..8].to_vec(), "not a Proxy-Wasm module");
    add("29-truncated", whole[..whole.len() - 3].to_vec(), "not a WebAssembly module");
    add("29-trailing-bytes", [&whole[..], b"more"].concat(), "not a WebAssembly module");
    add("29-version-2", [b"\0asm\x02\0\0\0", &whole[8..]].concat(), "not a WebAssembly module");
    add("30-functions", assemble(&"(func)".repeat(20_001)), "functions in the module");
    let nops = format!("(func {})", "nop ".repeat(1_100_000));
    add("30-function-body", assemble(&nops), "bytes in one function");
    let section = vec![0; 10 << 20];
    add("30-file", with_custom_section(&whole, "ballast", &section), "bytes in the module");
    add("31-elf", [b"\x7fELF\x02\x01\x01\0", &[0; 4_096][..]].concat(), "not a WebAssembly module");
    made
}

#[tokio::test]
async fn refused_guests_leave_the_running_proxy_alone() {
    let one = Backend::answering("one", answer).await;
    let chain = format!("- bad: {{}}\n- routing:\n    routes:\n{HEALTHY}");
    // The filter that stays is cheap: one that works long may be over its own limits while the modules are compiled.
    let gate = Meshgate::chain(&chain).filter("bad", &assemble(""), "").cluster("one", &[&one]).start().await;
    let arena = Arena { gate, one, guests: Vec::new() };
    let gate = &arena.gate;
    let load = arena.load(2);
    let mut version = gate.reload().await.version;
    let place = gate.setup().place("- bad: {}");
    let of_file = gate.setup().place("module: ./bad.wasm");
    let from_text = HostileGuest::all().into_iter().filter_map(|guest| {
        let reason = guest.says("refused")?.to_owned();
        Some((guest.name, guest.module, reason))
    });
    let made = made_modules().into_iter().map(|(name, module, reason)| (name, module, reason.to_owned()));
    let mut refused = 0;
    let mut wrong = Vec::new();
    for (name, module, reason) in from_text.chain(made) {
        let attempts = gate.reload().await.attempts;
        gate.replace("bad.wasm", module);
        let after = gate.reload_until(&format!("{name} is tried"), |reload| reload.attempts > attempts).await;
        let Some(errors) = after.errors else {
            wrong.push(format!("{name} is accepted"));
            version = after.version;
            continue;
        };
        if !errors.contains(&reason) || !(errors.contains(&place) || errors.contains(&of_file)) {
            wrong.push(format!("{name}: {errors}"));
        }
        assert_eq!(after.version, version, "{name}: the old configuration stays");
        refused += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused > 30, "{refused}");
    load.wait_for_more(100).await;
    load.stop().await.all_good();
    arena.gate.stop().await;
}
