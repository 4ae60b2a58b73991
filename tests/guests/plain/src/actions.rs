//! What the guest does to header maps and bodies.

use proxy_wasm::hostcalls;
use proxy_wasm::types::{Action, BufferType, MapType};

use crate::config::{BodyEdit, Changes, Reply};

impl Changes {
    pub(crate) fn apply(&self, map: MapType) {
        for name in &self.remove {
            let _ = hostcalls::remove_map_value(map, name);
        }
        for (name, value) in &self.set {
            let _ = hostcalls::set_map_value(map, name, Some(value));
        }
        for (name, value) in &self.add {
            let _ = hostcalls::add_map_value(map, name, value);
        }
    }
}

impl BodyEdit {
    /// Edits what is in the buffer, `size` bytes of it.
    pub(crate) fn apply(&self, is_response: bool, size: usize, is_first: bool, is_last: bool) -> Action {
        let buffer = if is_response { BufferType::HttpResponseBody } else { BufferType::HttpRequestBody };
        let set = |start, length, bytes: &[u8]| {
            let _ = hostcalls::set_buffer(buffer, start, length, bytes);
        };
        match self {
            Self::Replace(_) if !is_last => return Action::Pause,
            Self::Replace(text) => set(0, size, text.as_bytes()),
            Self::Append(text) if is_last => set(size, 0, text.as_bytes()),
            Self::Prepend(text) if is_first => set(0, 0, text.as_bytes()),
            Self::Uppercase(true) if size > 0 => {
                if let Ok(Some(bytes)) = hostcalls::get_buffer(buffer, 0, size) {
                    set(0, size, &bytes.to_ascii_uppercase());
                }
            }
            Self::Append(_) | Self::Prepend(_) | Self::Uppercase(_) => {}
        }
        Action::Continue
    }
}

impl Reply {
    pub(crate) fn send(&self) {
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let body = (!self.body.is_empty()).then_some(self.body.as_bytes());
        let _ = hostcalls::send_http_response(self.status, headers, body);
    }
}

/// Appends to a comma-separated field.
pub(crate) fn append(map: MapType, name: &str, text: &str) {
    let value = match hostcalls::get_map_value(map, name) {
        Ok(Some(before)) if !before.is_empty() => format!("{before},{text}"),
        _ => text.to_owned(),
    };
    let _ = hostcalls::set_map_value(map, name, Some(&value));
}

/// The number that some digits stand for; 0 if they do not.
pub(crate) fn number(digits: &[u8]) -> u64 {
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A property's value in a form that a field can hold.
pub(crate) fn shown(value: Option<&[u8]>) -> String {
    match value {
        None => "(none)".to_owned(),
        Some(bytes) if bytes.iter().all(|byte| (0x20..0x7f).contains(byte)) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        Some(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
