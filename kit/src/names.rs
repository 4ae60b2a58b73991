//! The names of functions in a module, which a host shows when the module traps.
//!
//! The compiler leaves them mangled, which takes a fifth of a small module. They are written as people read them instead, as
//! the host would show them, and names of other things are left out.

use anyhow::{Context, Result, bail};

use crate::section::push_length;

/// The bytes before the first section.
const HEAD: usize = 8;
/// The subsection with the names of functions.
const FUNCTIONS: u8 = 1;
/// The longest name in bytes: generic code has names without end.
const LONGEST: usize = 80;
/// What stands for the middle of a longer one.
const LEFT_OUT: &str = "..";

/// The module with shorter names.
///
/// # Errors
/// It is not a WebAssembly module.
pub(crate) fn shortened(module: &[u8]) -> Result<Vec<u8>> {
    let mut out = module.get(..HEAD).context("not a WebAssembly module")?.to_vec();
    let mut rest = Bytes(module.get(HEAD..).unwrap_or_default());
    while let Some(id) = rest.byte() {
        let content = rest.part()?;
        let mut inside = Bytes(content);
        let is_names = id == 0 && inside.part()? == b"name";
        out.push(id);
        if is_names {
            let mut section = Vec::new();
            push_part(&mut section, b"name")?;
            section.extend(functions(inside)?);
            push_part(&mut out, &section)?;
        } else {
            push_part(&mut out, content)?;
        }
    }
    Ok(out)
}

/// Of all subsections that with the functions, shortened.
fn functions(mut names: Bytes<'_>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(id) = names.byte() {
        let content = names.part()?;
        if id != FUNCTIONS {
            continue;
        }
        let mut functions = Bytes(content);
        let count = functions.number()?;
        let mut shorter = Vec::new();
        push_length(&mut shorter, count)?;
        for _ in 0..count {
            push_length(&mut shorter, functions.number()?)?;
            let name = String::from_utf8_lossy(functions.part()?);
            let name = without_middle(format!("{:#}", rustc_demangle::demangle(&name)));
            push_part(&mut shorter, name.as_bytes())?;
        }
        out.push(id);
        push_part(&mut out, &shorter)?;
    }
    Ok(out)
}

/// A long name begins with where the function is, and ends with what it is called.
fn without_middle(mut name: String) -> String {
    if name.len() > LONGEST {
        let half = (LONGEST - LEFT_OUT.len()) / 2;
        let middle = name.floor_char_boundary(half)..name.ceil_char_boundary(name.len() - half);
        name.replace_range(middle, LEFT_OUT);
    }
    name
}

fn push_part(out: &mut Vec<u8>, part: &[u8]) -> Result<()> {
    push_length(out, part.len())?;
    out.extend_from_slice(part);
    Ok(())
}

/// What was not read yet.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// An unsigned LEB128 number of 32 bits.
    fn number(&mut self) -> Result<usize> {
        let mut number = 0;
        for shift in (0..32).step_by(7) {
            let byte = self.byte().context("the module ends early")?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        bail!("not a WebAssembly module: a number without end")
    }

    /// A length, and so many bytes.
    fn part(&mut self) -> Result<&'a [u8]> {
        let length = self.number()?;
        let (part, rest) = self.0.split_at_checked(length).context("the module ends early")?;
        self.0 = rest;
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module with a type section, names of functions and of locals, and another custom section.
    fn module(functions: &[&str]) -> Vec<u8> {
        let mut names = vec![u8::try_from(functions.len()).unwrap()];
        for (index, name) in functions.iter().enumerate() {
            names.push(u8::try_from(index).unwrap());
            push_part(&mut names, name.as_bytes()).unwrap();
        }
        let mut section = b"\x04name\x01".to_vec();
        push_part(&mut section, &names).unwrap();
        section.extend(b"\x02\x03abc");
        let mut module = b"\0asm\x01\0\0\0\x01\x01\0\0".to_vec();
        push_part(&mut module, &section).unwrap();
        module.extend(b"\0\x05\x04otto");
        module
    }

    #[test]
    fn names_are_as_people_read_them() {
        let short = shortened(&module(&["_RNvC4core3run", "proxy_on_tick", &"x".repeat(300)])).unwrap();
        let text = String::from_utf8_lossy(&short);
        assert!(text.contains("core::run") && text.contains("proxy_on_tick"));
        assert!(!text.contains("_RNv") && !text.contains("abc"));
        assert!(short.starts_with(b"\0asm\x01\0\0\0\x01\x01\0\0") && short.ends_with(b"\0\x05\x04otto"));
        assert_eq!(shortened(&short).unwrap(), short, "there is nothing left to do");
    }

    #[test]
    fn long_names_keep_their_ends() {
        let name = format!("crate_of_a_filter::{}::on_request", "x".repeat(300));
        let short = without_middle(name);
        assert!(short.starts_with("crate_of_a_filter::xx") && short.ends_with("xx::on_request"), "{short}");
        assert_eq!((short.len(), short.matches(LEFT_OUT).count()), (LONGEST, 1));
        assert!(without_middle("ü".repeat(100)).len() <= LONGEST);
        assert_eq!(without_middle("x".repeat(LONGEST)), "x".repeat(LONGEST));
    }

    #[test]
    fn what_is_no_module_is_refused() {
        let whole = module(&["a"]);
        for end in [0, 7, 9, 13, whole.len() - 1] {
            assert!(shortened(&whole[..end]).is_err(), "{end}");
        }
        assert!(shortened(b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\xff\x01").is_err());
    }
}
