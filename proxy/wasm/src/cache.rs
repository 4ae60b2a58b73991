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

use sha2::{Digest, Sha256};
use wasmtime::{Engine, Module};

use crate::module::ModuleHash;

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
            self.replace(&checksum_path(&path), &Sha256::digest(&code))
        });
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot keep compiled module");
        }
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
