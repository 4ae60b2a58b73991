//! What the arguments of one hostcall point to, and what the host wrote there.

use serde_json::{Value, json};

/// What a place for a number holds before the call; a test sees null if it still does afterwards.
const UNTOUCHED: u64 = 0x5a5a_5a5a_5a5a_5a5a;
const UNTOUCHED_WORD: u32 = 0x5a5a_5a5a;

/// Memory for the host's answers: the ABI's own name for it.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let mut bytes = std::mem::ManuallyDrop::new(Vec::<u8>::with_capacity(size));
    bytes.as_mut_ptr()
}

/// The arguments of one hostcall.
#[derive(Default)]
pub(crate) struct Arguments {
    /// As the host sees them.
    pub(crate) numbers: Vec<u64>,
    /// What pointers point to; boxed, so that it stays where it is.
    bytes: Vec<Box<[u8]>>,
    outs: Vec<Out>,
}

/// Where the host writes an answer.
struct Out {
    kind: Kind,
    slot: Box<[u64; 2]>,
}

enum Kind {
    Word,
    Long,
    Bytes,
    Saved(String),
}

impl Arguments {
    /// Pointer and length of bytes.
    pub(crate) fn pass(&mut self, bytes: Vec<u8>) {
        let bytes = bytes.into_boxed_slice();
        self.numbers.extend([bytes.as_ptr() as u64, bytes.len() as u64]);
        self.bytes.push(bytes);
    }

    /// Pointer and length of a list of pointers and lengths, as WASI takes them.
    pub(crate) fn pass_parts(&mut self, parts: Vec<Vec<u8>>) {
        let count = parts.len();
        let mut list = Vec::new();
        for part in parts.into_iter().map(Vec::into_boxed_slice) {
            list.extend((part.as_ptr() as u32).to_le_bytes());
            list.extend((part.len() as u32).to_le_bytes());
            self.bytes.push(part);
        }
        self.pass(list);
        if let Some(length) = self.numbers.last_mut() {
            *length = count as u64;
        }
    }

    /// Pointers to places for answers of this kind. False: there is no such kind.
    pub(crate) fn expect(&mut self, kind: &str) -> bool {
        let kind = match kind {
            "word" => Kind::Word,
            "long" => Kind::Long,
            "bytes" => Kind::Bytes,
            _ => return false,
        };
        self.out(kind);
        true
    }

    /// A pointer to a place for a number that is to be kept under this name.
    pub(crate) fn keep(&mut self, name: &str) {
        self.out(Kind::Saved(name.to_owned()));
    }

    fn out(&mut self, kind: Kind) {
        let mut slot = Box::new([UNTOUCHED; 2]);
        let [first, second] = &mut *slot;
        self.numbers.push(std::ptr::from_mut(first) as u64);
        if matches!(kind, Kind::Bytes) {
            self.numbers.push(std::ptr::from_mut(second) as u64);
        }
        self.outs.push(Out { kind, slot });
    }

    /// What the host wrote, and the numbers to be kept.
    pub(crate) fn answers(self) -> (Vec<Value>, Vec<(String, u64)>) {
        let mut saved = Vec::new();
        let answers = self.outs.into_iter().map(|out| out.answer(&mut saved)).collect();
        (answers, saved)
    }
}

impl Out {
    fn answer(self, saved: &mut Vec<(String, u64)>) -> Value {
        // The host wrote behind the compiler's back.
        let [first, second] = std::hint::black_box(*self.slot);
        let (word, size) = (first as u32, second as u32);
        match self.kind {
            Kind::Long if first == UNTOUCHED => Value::Null,
            Kind::Long => json!(first),
            Kind::Word | Kind::Saved(_) | Kind::Bytes if word == UNTOUCHED_WORD => Value::Null,
            Kind::Word => json!(word),
            Kind::Saved(name) => {
                saved.push((name, word.into()));
                json!(word)
            }
            Kind::Bytes if word == 0 => shown(&[]),
            Kind::Bytes => {
                let (address, size) = (word as usize as *mut u8, size as usize);
                // SAFETY: the host says that it got this memory from `proxy_on_memory_allocate`, of exactly this size.
                let bytes = unsafe { Vec::from_raw_parts(address, size, size) };
                shown(&bytes)
            }
        }
    }
}

/// Bytes of an answer that are shown; of longer ones, only the size is: hosts cut long lines.
const SHOWN: usize = 2_000;

/// Text as it is, other bytes as hexadecimal digits.
fn shown(bytes: &[u8]) -> Value {
    if bytes.len() > SHOWN {
        return json!({"size": bytes.len()});
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(|letter: char| letter.is_control()) => json!(text),
        _ => json!({"hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()}),
    }
}
