//! What a set of files contained at one moment.
//!
//! Contents are compared by hash, so that a touched or rewritten but equal file is no change. Files are only read again when their metadata differ from
//! last time, or when they were last read so soon after a change that a second change could carry the same timestamp.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

/// The coarsest timestamps that file systems in use keep are two seconds apart.
const TIMESTAMP_STEP: Duration = Duration::from_secs(2);
/// Files are stamped with a clock that is a few milliseconds behind the one that programs read.
const STAMP_LAG: Duration = Duration::from_millis(20);

/// Files and what was seen of each.
#[derive(Debug, Clone, Default)]
pub struct Fingerprint {
    files: BTreeMap<PathBuf, Seen>,
}

#[derive(Debug, Clone)]
struct Seen {
    stamp: Option<Stamp>,
    content: Content,
    at: SystemTime,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// The SHA-256 of a regular file.
    Hash([u8; 32]),
    /// Missing, unreadable, or no regular file.
    Absent(io::ErrorKind),
    /// The file may have changed after it was read: differs from everything.
    Unknown,
}

/// The metadata that change when a file's content does or another file takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }

    fn changed(&self) -> SystemTime {
        let (seconds, nanoseconds) = self.changed;
        let seconds = Duration::from_secs(seconds.try_into().unwrap_or(0));
        UNIX_EPOCH + seconds + Duration::from_nanos(nanoseconds.try_into().unwrap_or(0))
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Seen {
    fn look(path: &Path) -> Self {
        let at = SystemTime::now();
        Self::read(path, Stamp::of(path), at)
    }

    /// Reads the file that had this stamp then. If it changed in between, what was read does not belong to the stamp: a load
    /// before the change did not see it, although nothing changes any more.
    fn read(path: &Path, stamp: Option<Stamp>, at: SystemTime) -> Self {
        let content = hash(path).map_or_else(|error| Content::Absent(error.kind()), Content::Hash);
        let content = if Stamp::of(path) == stamp { content } else { Content::Unknown };
        Self { stamp, content, at }
    }

    /// Whether a look at the metadata alone cannot rule out a change.
    fn is_doubtful(&self, path: &Path) -> bool {
        let stamp = Stamp::of(path);
        stamp != self.stamp || stamp.is_some_and(|stamp| stamp.changed() + TIMESTAMP_STEP > self.at)
    }
}

fn hash(path: &Path) -> io::Result<[u8; 32]> {
    if !fs::metadata(path)?.is_file() {
        // Reading a pipe or a device could take for ever.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(length) => hasher.update(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Fingerprint {
    /// The files looked at.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        self.files.keys().cloned().collect()
    }

    /// The fingerprint of `files` now; contents are taken from `self` where nothing can have changed.
    pub fn retake(&self, files: &BTreeSet<PathBuf>) -> Self {
        let look = |path: &PathBuf| match self.files.get(path) {
            Some(seen) if !seen.is_doubtful(path) => seen.clone(),
            _ => Seen::look(path),
        };
        Self { files: files.iter().map(|path| (path.clone(), look(path))).collect() }
    }

    /// The fingerprint with a fresh look at `few` of its files; none if nothing is new in them, or if another file may have
    /// changed as well. Of the others only metadata are read: those that are large are not read for the sake of the few.
    pub fn renewed(&self, few: &BTreeSet<PathBuf>) -> Option<Self> {
        let mut others = self.files.iter().filter(|(path, _)| !few.contains(*path));
        if others.any(|(path, seen)| Stamp::of(path) != seen.stamp) {
            return None;
        }
        let mut renewed = self.clone();
        let mut changed = false;
        for (path, seen) in renewed.files.iter_mut().filter(|(path, _)| few.contains(*path)) {
            if seen.is_doubtful(path) {
                let now = Seen::look(path);
                changed |= now.content != seen.content;
                *seen = now;
            }
        }
        changed.then_some(renewed)
    }

    /// Whether it is worth retaking. Only reads metadata.
    pub fn is_doubtful(&self) -> bool {
        self.files.iter().any(|(path, seen)| seen.is_doubtful(path))
    }

    /// Whether both saw the same files with the same contents.
    pub fn same_content(&self, other: &Self) -> bool {
        self.files.len() == other.files.len()
            && self.files.iter().zip(&other.files).all(|((path, seen), (other_path, other))| {
                path == other_path && seen.content == other.content && seen.content != Content::Unknown
            })
    }

    /// What a load that `began` between `before` and `self` certainly saw. A file that was known before has the content it had then; of one that was
    /// not, the content is only known if it has not changed since.
    pub fn as_loaded(&self, before: &Self, began: SystemTime) -> Self {
        let mut loaded = self.clone();
        for (path, seen) in &mut loaded.files {
            match before.files.get(path) {
                Some(known) => seen.content = known.content.clone(),
                None if seen.stamp.is_some_and(|stamp| stamp.changed() + STAMP_LAG >= began) => {
                    seen.content = Content::Unknown;
                }
                None => {}
            }
        }
        loaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_while_it_is_read_is_not_taken_for_what_a_load_saw() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        fs::write(&old, "one").unwrap();
        let stamps = [&new, &old].map(|path| Stamp::of(path));
        let at = SystemTime::now();
        fs::write(&new, "appeared").unwrap();
        fs::write(&old, "longer").unwrap();
        for (path, stamp) in [&new, &old].into_iter().zip(stamps) {
            let files = BTreeMap::from([(path.clone(), Seen::read(path, stamp, at))]);
            let loaded = Fingerprint { files }.as_loaded(&Fingerprint::default(), at);
            let now = loaded.retake(&loaded.files());
            assert!(!loaded.same_content(&now), "{}", path.display());
        }
    }
}
