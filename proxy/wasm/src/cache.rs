//! Compiled modules on disk, so that a restart does not compile again.
//!
//! Loading compiled code means running it unchecked. So only files are loaded that this process's user wrote into
//! a directory that nobody else may write to, whose checksum holds, and which this very engine made.

use std::fs::{self, DirBuilder, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
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
        })
    }

    /// The compiled module, if it is here and sound. Anything else is as if it were not here.
    pub(crate) fn load(&self, engine: &Engine, hash: &ModuleHash) -> Option<Module> {
        let path = self.path(hash);
        let metadata = fs::symlink_metadata(&path).ok()?;
        if !metadata.is_file() || !ours(&metadata) || metadata.mode() & 0o022 != 0 {
            return None;
        }
        let code = fs::read(&path).ok()?;
        let expected = fs::read(checksum_path(&path)).ok()?;
        if Sha256::digest(&code)[..] != expected[..] {
            tracing::warn!(path = %path.display(), "damaged compiled module, compiling again");
            return None;
        }
        drop(code);
        // So that it counts as used. If that fails, it may be compiled again some day.
        let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        #[expect(
            unsafe_code,
            reason = "loads code; the file is ours alone, whole, and named after this engine"
        )]
        // SAFETY: the file was written by `store` from `Module::serialize` of an engine with this fingerprint; only
        // this user can write to the directory, and files in it are replaced by rename, never changed in place.
        let module = unsafe { Module::deserialize_file(engine, &path) };
        module
            .inspect_err(
                |error| tracing::warn!(path = %path.display(), %error, "cannot load compiled module"),
            )
            .ok()
    }

    /// Keeps a compiled module. A failure costs a compilation at the next start, no more.
    pub(crate) fn store(&self, hash: &ModuleHash, module: &Module) {
        let path = self.path(hash);
        let written = module.serialize().map_err(io::Error::other).and_then(|code| {
            // The checksum last: without it the code is not used.
            self.replace(&path, &code)?;
            self.replace(&checksum_path(&path), &Sha256::digest(&code))?;
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
            // The checksum first: code without it is not used.
            let _ = fs::remove_file(checksum_path(&path));
            let _ = fs::remove_file(&path);
        }
        Ok(())
    }

    fn path(&self, hash: &ModuleHash) -> PathBuf {
        self.directory.join(format!("{hash}-{}.code", self.engine))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!(".{}.{serial}", std::process::id()));
        let write = || -> io::Result<()> {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            fs::rename(&temporary, path)
        };
        let result = write();
        if result.is_err() {
            // Nothing to do if it was never there.
            let _ = fs::remove_file(&temporary);
        }
        result
    }
}

fn checksum_path(path: &Path) -> PathBuf {
    path.with_extension("sha256")
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
            cache.replace(&checksum_path(&path), &[0; 32]).unwrap();
            let used = SystemTime::now() - Duration::from_secs(age * 1000);
            File::open(&path).unwrap().set_modified(used).unwrap();
        }
        cache.prune(400).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 8);
        cache.prune(250).unwrap();
        let mut left: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["middle.code", "middle.sha256", "new.code", "new.sha256"]);
    }
}
