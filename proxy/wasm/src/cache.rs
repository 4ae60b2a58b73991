//! Compiled modules on disk, so that a restart does not compile again.
//!
//! Loading compiled code means running it unchecked. So only files are loaded that this process's user wrote into
//! a directory that nobody else may write to, that carry a code (HMAC-SHA-256) made with the directory's own key, and
//! which this very engine made. A file from another directory, another machine or another engine is compiled anew.

use std::fs::{self, DirBuilder, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use wasmtime::{Engine, Module};

use crate::module::ModuleHash;

/// Most bytes of compiled code that are kept: some hundred modules. Beyond it, what was not used for longest goes.
const MOST_BYTES: u64 = 256 << 20;

/// A directory of compiled modules.
pub(crate) struct Cache {
    directory: PathBuf,
    /// Identifies compiler, its settings and the processor's features; part of every file's name.
    engine: String,
    key: [u8; 32],
}

impl Cache {
    /// Makes the directory if there is none, and refuses one that others could write to.
    pub(crate) fn open(directory: &Path, engine: &Engine) -> io::Result<Cache> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let metadata = fs::symlink_metadata(directory)?;
        if !metadata.is_dir() || !ours(&metadata) || metadata.mode() & 0o077 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "must be a directory of this user with mode 0700",
            ));
        }
        let mut fingerprint = Fingerprint(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut fingerprint);
        let digest: [u8; 32] = fingerprint.0.finalize().into();
        Ok(Cache {
            directory: directory.to_path_buf(),
            engine: ModuleHash(digest).to_string()[..16].to_owned(),
            key: key(directory)?,
        })
    }

    /// The compiled module, if it is here and ours. Anything else is as if it were not here.
    pub(crate) fn load(&self, engine: &Engine, hash: &ModuleHash) -> Option<Module> {
        let path = self.path(hash);
        // One file from here on: what is checked is what is loaded, whatever happens to the name.
        let mut file = open(&path).ok()?;
        let mut code = Vec::new();
        file.read_to_end(&mut code).ok()?;
        let mut expected = Vec::new();
        open(&code_path(&path)).ok()?.take(64).read_to_end(&mut expected).ok()?;
        if !equal(&self.authenticate(&path, &code), &expected) {
            tracing::warn!(path = %path.display(), "not a compiled module of ours, compiling again");
            return None;
        }
        drop(code);
        // So that it counts as used. If that fails, it may be compiled again some day.
        let _ = file.set_modified(SystemTime::now());
        #[expect(unsafe_code, reason = "loads code; the file is ours, whole, and made by this engine")]
        // SAFETY: the file was written by `store` from `Module::serialize` of an engine with this fingerprint, as its
        // authentication code shows; only this user can write to the directory, and files in it are replaced by
        // rename, never changed in place.
        let module = unsafe { Module::deserialize_open_file(engine, file) };
        module
            .inspect_err(
                |error| tracing::warn!(path = %path.display(), %error, "cannot load compiled module"),
            )
            .ok()
    }

    /// The code that shows that this file was written with this directory's key, under this name.
    fn authenticate(&self, path: &Path, code: &[u8]) -> [u8; 32] {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        hmac(&self.key, &[&(name.len() as u64).to_le_bytes(), name, code])
    }

    /// Keeps a compiled module. A failure costs a compilation at the next start, no more.
    pub(crate) fn store(&self, hash: &ModuleHash, module: &Module) {
        let path = self.path(hash);
        let written = module.serialize().map_err(io::Error::other).and_then(|code| {
            // The authentication code last: without it the compiled code is not used.
            self.replace(&path, &code)?;
            self.replace(&code_path(&path), &self.authenticate(&path, &code))?;
            self.prune(MOST_BYTES)
        });
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot keep compiled module");
        }
    }

    /// Removes what was not used for longest until no more than `most` bytes of code are left. Processes that run such
    /// code keep it: a file goes with its last user.
    fn prune(&self, most: u64) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            // A file that is gone was removed by another process that does the same.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if path.extension().is_some_and(|extension| extension == "code") {
                kept.push((metadata.modified()?, metadata.len(), path));
            }
        }
        kept.sort();
        let mut bytes: u64 = kept.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in kept {
            if bytes <= most {
                break;
            }
            bytes -= length;
            // Its authentication code first: without it, it is not used.
            let _ = fs::remove_file(code_path(&path));
            let _ = fs::remove_file(&path);
        }
        Ok(())
    }

    fn path(&self, hash: &ModuleHash) -> PathBuf {
        self.directory.join(format!("{hash}-{}.code", self.engine))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        write(&self.directory, bytes, |temporary| fs::rename(temporary, path))
    }
}

/// Writes a file beside the others and gives it its name.
fn write(directory: &Path, bytes: &[u8], name: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let temporary = directory.join(format!(".{}.{serial}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        name(&temporary)
    };
    let result = write();
    // Nothing to do if it has another name now, or was never there.
    let _ = fs::remove_file(&temporary);
    result
}

/// The directory's key, made if there is none. What was written with another key is no longer used.
fn key(directory: &Path) -> io::Result<[u8; 32]> {
    let path = directory.join("key");
    if !path.exists() {
        let mut key = [0; 32];
        let filled = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())?;
        if filled < key.len() {
            return Err(io::Error::other("no random bytes"));
        }
        // By a link, which never replaces the key of a process that was faster.
        match write(directory, &key, |temporary| fs::hard_link(temporary, &path)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let mut key = [0; 32];
    open(&path)?.read_exact(&mut key)?;
    Ok(key)
}

/// Opens a file that this user alone may have written; not a link.
fn open(path: &Path) -> io::Result<File> {
    let named = fs::symlink_metadata(path)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let same = (named.dev(), named.ino()) == (metadata.dev(), metadata.ino());
    if same && metadata.is_file() && ours(&metadata) && metadata.mode() & 0o022 == 0 {
        return Ok(file);
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

/// HMAC with SHA-256 (RFC 2104).
fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let mut within = Sha256::new_with_prefix(padded(0x36));
    parts.iter().for_each(|part| within.update(part));
    Sha256::new_with_prefix(padded(0x5c)).chain_update(within.finalize()).finalize().into()
}

/// In a time that does not tell where they differ.
fn equal(code: &[u8; 32], other: &[u8]) -> bool {
    other.len() == code.len() && code.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other)) == 0
}

fn code_path(path: &Path) -> PathBuf {
    path.with_extension("hmac")
}

fn ours(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

/// Feeds what a value hashes to SHA-256: the standard hashers are not stable between builds.
struct Fingerprint(Sha256);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("cache");
        let cache = Cache::open(&directory, &Engine::default()).unwrap();
        for (name, age) in [("new", 1), ("old", 3), ("older", 4), ("middle", 2)] {
            let path = directory.join(name).with_extension("code");
            cache.replace(&path, &[0; 100]).unwrap();
            cache.replace(&code_path(&path), &[0; 32]).unwrap();
            let used = SystemTime::now() - Duration::from_secs(age * 1000);
            File::open(&path).unwrap().set_modified(used).unwrap();
        }
        cache.prune(400).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 9);
        cache.prune(250).unwrap();
        let mut left: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["key", "middle.code", "middle.hmac", "new.code", "new.hmac"]);
    }

    #[test]
    fn authentication_codes_are_those_of_the_standard() {
        // RFC 4231, test case 1: the key is twenty times 0x0b, which zeros pad to 32 bytes and then to 64 alike.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(ModuleHash(hmac(&key, &[b"Hi ", b"There"])).to_string(), expected);
    }

    #[test]
    fn only_what_was_written_under_this_name_with_this_key_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = |name: &str| Cache::open(&folder.path().join(name), &engine).unwrap();
        let (one, other) = (cache("one"), cache("other"));
        let module = Module::new(&engine, wat::parse_str("(module)").unwrap()).unwrap();
        let (hash, another) = (ModuleHash::of(b"1"), ModuleHash::of(b"2"));
        one.store(&hash, &module);
        assert!(one.load(&engine, &hash).is_some());
        assert!(cache("one").load(&engine, &hash).is_some(), "the key stays");
        let copy = |to: &Cache, as_hash: &ModuleHash| {
            fs::copy(one.path(&hash), to.path(as_hash)).unwrap();
            fs::copy(code_path(&one.path(&hash)), code_path(&to.path(as_hash))).unwrap();
        };
        copy(&one, &another);
        assert!(one.load(&engine, &another).is_none(), "another module's code");
        copy(&other, &hash);
        assert!(other.load(&engine, &hash).is_none(), "another directory's code");
        // Code of somebody else, with the plain checksum that anybody can make.
        fs::write(code_path(&one.path(&hash)), Sha256::digest(fs::read(one.path(&hash)).unwrap())).unwrap();
        assert!(one.load(&engine, &hash).is_none());
    }
}
