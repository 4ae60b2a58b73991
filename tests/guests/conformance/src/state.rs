//! The live contexts, and what the configuration says that they do.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::hostcalls;
use crate::memory::Arguments;

/// Results in one log line: hosts cut long ones.
const RESULTS: usize = 100;
const INFO: u32 = 2;

/// The buffers a configuration may be in: the plugin's, the VM's.
const CONFIGURATIONS: [u32; 2] = [7, 6];

#[derive(Default)]
struct State {
    /// Root contexts.
    plugins: HashMap<u32, Plugin>,
    /// Stream context → root context.
    parents: HashMap<u32, u32>,
    last_stream: u32,
    /// How often a context entered a callback.
    entered: HashMap<(u32, &'static str), u32>,
}

#[derive(Default)]
struct Plugin {
    script: Map<String, Value>,
    saved: HashMap<String, u64>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Notes a new context.
pub(crate) fn create(id: u32, parent: u32) {
    STATE.with_borrow_mut(|state| {
        if parent == 0 {
            state.plugins.entry(id).or_default();
        } else {
            state.parents.insert(id, parent);
            state.last_stream = id;
        }
    });
}

/// Forgets a context.
pub(crate) fn forget(id: u32) {
    STATE.with_borrow_mut(|state| {
        state.plugins.remove(&id);
        state.parents.remove(&id);
        state.entered.retain(|(context, _), _| *context != id);
    });
}

/// Whether it is a root context.
pub(crate) fn is_root(id: u32) -> bool {
    STATE.with_borrow(|state| state.plugins.contains_key(&id))
}

/// Runs the steps for this callback, reports, and says what the callback answers.
pub(crate) fn run(phase: &'static str, id: u32, arguments: &[u32], default: u32) -> u32 {
    let nested = INSIDE.replace(true);
    let root = STATE.with_borrow(|state| state.parents.get(&id).copied().unwrap_or(id));
    let (mut answer, mut results) = (default, Vec::new());
    for step in steps(phase, id, root) {
        match step {
            Value::Array(call) => {
                results.push(make(&call, id, root).unwrap_or_else(|| json!("no such call")))
            }
            step => answer = step["return"].as_u64().map_or(answer, |number| number as u32),
        }
    }
    report(&json!({"phase": phase, "context": id, "arguments": arguments}), nested, &results);
    INSIDE.set(nested);
    answer
}

fn steps(phase: &'static str, id: u32, root: u32) -> Vec<Value> {
    let unread =
        STATE.with_borrow(|state| state.plugins.get(&root).is_some_and(|plugin| plugin.script.is_empty()));
    let script = if unread { read_script() } else { None };
    STATE.with_borrow_mut(|state| {
        let entered = state.entered.entry((id, phase)).or_insert(0);
        *entered += 1;
        let now = format!("{phase}#{entered}");
        let Some(plugin) = state.plugins.get_mut(&root) else { return Vec::new() };
        plugin.script.extend(script.unwrap_or_default());
        let named = [now.as_str(), phase].into_iter().filter_map(|name| plugin.script.get(name)?.as_array());
        named.flatten().cloned().collect()
    })
}

/// Not every host shows the plugin's configuration before it is configured.
fn read_script() -> Option<Map<String, Value>> {
    let read = |buffer: u32| {
        let (address, size) = (Box::new(0_u32), Box::new(0_u32));
        let (address, size) = (Box::into_raw(address), Box::into_raw(size));
        let arguments = [buffer.into(), 0, u32::MAX.into(), address as u64, size as u64];
        let status = hostcalls::call("proxy_get_buffer_bytes", &arguments)?;
        // SAFETY: made of boxes above; the host wrote numbers.
        let (address, size) = unsafe { (*Box::from_raw(address), *Box::from_raw(size) as usize) };
        if status != 0 || size == 0 {
            return None;
        }
        // SAFETY: memory of `proxy_on_memory_allocate`, of exactly this size.
        let bytes = unsafe { Vec::from_raw_parts(address as usize as *mut u8, size, size) };
        serde_json::from_slice(&bytes).ok()
    };
    CONFIGURATIONS.into_iter().find_map(read)
}

/// Makes one hostcall: its status, and what the host wrote.
fn make(call: &[Value], id: u32, root: u32) -> Option<Value> {
    let (name, given) = call.split_first()?;
    let mut arguments = Arguments::default();
    for argument in given {
        pass(&mut arguments, argument, id, root)?;
    }
    let status = hostcalls::call(name.as_str()?, &arguments.numbers)?;
    let (answers, saved) = arguments.answers();
    STATE.with_borrow_mut(|state| {
        if let Some(plugin) = state.plugins.get_mut(&root) {
            plugin.saved.extend(saved);
        }
    });
    let mut result = vec![json!(status)];
    result.extend(answers);
    Some(Value::Array(result))
}

fn pass(arguments: &mut Arguments, argument: &Value, id: u32, root: u32) -> Option<()> {
    match argument {
        Value::Number(number) => {
            arguments.numbers.push(number.as_u64().or_else(|| Some(number.as_i64()? as u64))?);
        }
        Value::String(text) => arguments.pass(text.as_bytes().to_vec()),
        Value::Object(object) => {
            let (kind, value) = object.iter().next()?;
            match (kind.as_str(), value.as_str()) {
                ("hex", Some(digits)) => arguments.pass(bytes(digits)?),
                ("out", Some(kind)) => arguments.expect(kind).then_some(())?,
                ("save", Some(name)) => arguments.keep(name),
                ("saved", Some(name)) => arguments.numbers.push(STATE.with_borrow(|state| {
                    state.plugins.get(&root).and_then(|plugin| plugin.saved.get(name)).copied().unwrap_or(0)
                })),
                ("id", Some("context")) => arguments.numbers.push(id.into()),
                ("id", Some("root")) => arguments.numbers.push(root.into()),
                ("id", Some("stream")) => {
                    arguments.numbers.push(STATE.with_borrow(|state| state.last_stream).into());
                }
                ("parts", None) => {
                    let parts = value.as_array()?.iter().map(|part| Some(part.as_str()?.as_bytes().to_vec()));
                    arguments.pass_parts(parts.collect::<Option<_>>()?);
                }
                ("pairs", None) => arguments.pass(serialized(value.as_array()?)?),
                _ => return None,
            }
        }
        _ => return None,
    }
    Some(())
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

/// A map as the ABI serializes it: the number of pairs, their lengths, then names and values, each ended by a NUL.
fn serialized(pairs: &[Value]) -> Option<Vec<u8>> {
    let mut lengths = (pairs.len() as u32).to_le_bytes().to_vec();
    let mut texts = Vec::new();
    for text in pairs.iter().flat_map(|pair| [&pair[0], &pair[1]]) {
        let text = text.as_str()?;
        lengths.extend((text.len() as u32).to_le_bytes());
        texts.extend(text.as_bytes());
        texts.push(0);
    }
    lengths.extend(texts);
    Some(lengths)
}

fn report(head: &Value, nested: bool, results: &[Value]) {
    let mut from = 0;
    loop {
        let end = results.len().min(from + RESULTS);
        let mut line = head.clone();
        line["from"] = from.into();
        line["results"] = results[from..end].into();
        if nested {
            line["nested"] = true.into();
        }
        let line = format!("conformance {line}");
        let _ = hostcalls::call("proxy_log", &[INFO.into(), line.as_ptr() as u64, line.len() as u64]);
        from = end;
        if from >= results.len() {
            return;
        }
    }
}
