//! Just enough of the WebAssembly binary format to put a manifest into a module.

use anyhow::{Result, bail};

/// The custom section that carries a module's manifest.
pub const MANIFEST_SECTION: &str = "meshgate.manifest";

const MAGIC: &[u8] = b"\0asm\x01\0\0\0";

/// The module with a custom section appended. Custom sections may stand anywhere, so nothing else moves.
///
/// # Errors
/// `module` is not a WebAssembly module, or the section would be longer than 4 GiB.
pub fn with_custom_section(module: &[u8], name: &str, content: &[u8]) -> Result<Vec<u8>> {
    if !module.starts_with(MAGIC) {
        bail!("not a WebAssembly module");
    }
    let mut section = Vec::with_capacity(content.len() + name.len() + 5);
    push_length(&mut section, name.len())?;
    section.extend_from_slice(name.as_bytes());
    section.extend_from_slice(content);

    let mut out = Vec::with_capacity(module.len() + section.len() + 6);
    out.extend_from_slice(module);
    out.push(0);
    push_length(&mut out, section.len())?;
    out.extend_from_slice(&section);
    Ok(out)
}

/// Appends `length` as an unsigned LEB128 number.
pub(crate) fn push_length(out: &mut Vec<u8>, length: usize) -> Result<()> {
    let mut rest = u32::try_from(length)?;
    while rest >= 0x80 {
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_appended_with_its_lengths() {
        let module = with_custom_section(MAGIC, "ab", b"xyz").unwrap();
        assert_eq!(module, b"\0asm\x01\0\0\0\x00\x06\x02abxyz");
    }

    #[test]
    fn long_sections_have_longer_lengths() {
        let module = with_custom_section(MAGIC, "n", &[7; 200]).unwrap();
        assert_eq!(module[8..13], [0, 0xca, 0x01, 1, b'n']);
        assert_eq!(module.len(), 8 + 3 + 202);
    }

    #[test]
    fn other_files_are_refused() {
        assert!(with_custom_section(b"\x7fELF", "n", b"").is_err());
    }
}
