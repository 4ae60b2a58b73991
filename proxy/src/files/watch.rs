//! Notices that a file may have changed.
//!
//! Files are watched through the directories they are in, because an editor replaces a file by renaming another one onto it, and through the directories
//! of every symbolic link on the way, because Kubernetes replaces a whole directory by swapping a link. Where the operating system gives no
//! notice (network file systems, used-up limits, a directory that is removed and made again), looking at the metadata every second does.
//!
//! A file that was renamed into its place is whole. One that is written in its place is whole when nothing has happened for a while.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, timeout_at};

use super::Fingerprint;

/// A burst of changes is over when nothing happens for this long …
const QUIET: Duration = Duration::from_millis(100);
/// … but is not waited for longer than this.
const LONGEST_BURST: Duration = Duration::from_secs(1);
/// How often metadata are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// As many symbolic links as the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// A watch on a changing set of files.
#[derive(Debug)]
pub struct Watch {
    /// `None`: the operating system gives no notice, and only looking remains.
    watcher: Option<RecommendedWatcher>,
    /// The watched directories, with device and inode: another directory under the same path needs a watch of its own.
    directories: BTreeMap<PathBuf, (u64, u64)>,
    relevant: Arc<Mutex<HashSet<PathBuf>>>,
    touched: Arc<Notify>,
    /// Counts what happened that is no renaming: each may leave a file half written.
    written: Arc<AtomicU64>,
    /// How much of that has had its quiet time since.
    settled: u64,
    /// There are directories without a watch.
    blind: bool,
    /// The system has given notice since the last look, which may also be our own wish.
    told: Arc<AtomicBool>,
    look: Option<Interval>,
}

/// How it was found out that a file may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The operating system said so.
    Told,
    /// By looking: what happened is not known.
    Found,
}

impl Watch {
    /// A watch on no files.
    pub fn start() -> Self {
        let mut watch = Self::only_looking();
        let (relevant, touched) = (Arc::clone(&watch.relevant), Arc::clone(&watch.touched));
        let (written, told) = (Arc::clone(&watch.written), Arc::clone(&watch.told));
        let noticed = move |event: notify::Result<Event>| {
            if is_relevant(&event, &relevant.lock().unwrap_or_else(PoisonError::into_inner)) {
                if !is_renaming(&event) {
                    written.fetch_add(1, Relaxed);
                }
                told.store(true, Relaxed);
                // After these, which whoever is woken is to see.
                touched.notify_one();
            }
        };
        match notify::recommended_watcher(noticed) {
            Ok(watcher) => watch.watcher = Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "the system gives no notice of changed files; looking every second instead");
            }
        }
        watch
    }

    /// A watch that gets no notice from the operating system.
    pub fn only_looking() -> Self {
        Self {
            watcher: None,
            directories: BTreeMap::new(),
            relevant: Arc::default(),
            touched: Arc::default(),
            written: Arc::default(),
            settled: 0,
            blind: false,
            told: Arc::default(),
            look: None,
        }
    }

    /// Watches these files and no others.
    pub fn arm(&mut self, files: &BTreeSet<PathBuf>) {
        let trail: HashSet<PathBuf> = files.iter().flat_map(|file| trail(file)).collect();
        let directories = trail.iter().filter_map(|path| path.parent());
        let directories: BTreeMap<PathBuf, (u64, u64)> = directories
            .filter_map(|path| Some((path.to_owned(), fs::metadata(path).ok()?)))
            .map(|(path, metadata)| (path, (metadata.dev(), metadata.ino())))
            .collect();
        let relevant = trail.into_iter().chain(directories.keys().cloned()).collect();
        *self.relevant.lock().unwrap_or_else(PoisonError::into_inner) = relevant;
        let Some(watcher) = &mut self.watcher else { return };
        for path in self
            .directories
            .iter()
            .filter(|entry| directories.get(entry.0) != Some(entry.1))
            .map(|entry| entry.0)
        {
            // A directory that is gone has taken its watch along.
            let _ = watcher.unwatch(path);
        }
        for path in directories
            .iter()
            .filter(|entry| self.directories.get(entry.0) != Some(entry.1))
            .map(|entry| entry.0)
        {
            if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
                tracing::warn!(path = %path.display(), %error, "cannot watch the directory; looking every second instead");
                self.blind = true;
            }
        }
        self.directories = directories;
    }

    /// Makes the next [`touched`](Self::touched) return at once, as if something had been found by looking.
    pub fn touch(&self) {
        self.touched.notify_one();
    }

    /// Whether all that has happened in this burst is that files were renamed into their places.
    pub fn only_renamed(&self) -> bool {
        self.watcher.is_some() && !self.blind && self.written.load(Relaxed) == self.settled
    }

    /// Waits until one of the files may differ from the fingerprint.
    pub async fn touched(&mut self, loaded: &Fingerprint) -> Notice {
        let look = self.look.get_or_insert_with(|| {
            let mut look = tokio::time::interval(LOOK);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            look
        });
        loop {
            tokio::select! {
                () = self.touched.notified() => {
                    return if self.told.swap(false, Relaxed) { Notice::Told } else { Notice::Found };
                }
                _ = look.tick() => if loaded.is_doubtful() { return Notice::Found },
            }
        }
    }

    /// Waits for the end of a burst of changes.
    pub async fn settle(&mut self) {
        let began = Instant::now();
        while self.goes_on(began).await {}
    }

    /// Waits for the next change of a burst that began then; false if it is over, or is not waited for any longer.
    pub async fn goes_on(&mut self, began: Instant) -> bool {
        let (quiet, latest) = (Instant::now() + QUIET, began + LONGEST_BURST);
        let written = self.written.load(Relaxed);
        let goes_on = timeout_at(quiet.min(latest), self.touched.notified()).await.is_ok();
        if goes_on {
            self.told.store(false, Relaxed);
        } else if quiet <= latest {
            self.settled = written;
        }
        goes_on
    }

    /// Whether a burst that began then has gone on for longer than it is waited for.
    pub fn is_long(began: Instant) -> bool {
        began.elapsed() > LONGEST_BURST
    }
}

/// Whether an event puts a whole file, or a link, into its place, takes one away, or leaves the contents alone.
fn is_renaming(event: &notify::Result<Event>) -> bool {
    use EventKind::{Modify, Remove};
    let Ok(event) = event else { return false };
    let whole = matches!(event.kind, Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_)) | Remove(_));
    whole && !event.need_rescan()
}

/// Whether an event is about one of the paths. Reading is not: we do that ourselves. What cannot be understood counts.
fn is_relevant(event: &notify::Result<Event>, paths: &HashSet<PathBuf>) -> bool {
    let Ok(event) = event else { return true };
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return false,
        _ => {}
    }
    event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(|path| paths.contains(path))
}

/// The symbolic links on the way to a file, and at the end the file itself, or the first part of the path that is missing. Each is given with a parent
/// directory that has no link in its path, as the watcher reports it.
fn trail(path: &Path) -> Vec<PathBuf> {
    let Ok(path) = std::path::absolute(path) else { return Vec::new() };
    let mut trail = Vec::new();
    let mut at = PathBuf::from("/");
    let mut ahead: Vec<OsString> = backwards(&path);
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let kind = fs::symlink_metadata(&next).map(|metadata| metadata.file_type());
        match kind {
            Ok(kind) if kind.is_symlink() && links < MOST_LINKS => {
                links += 1;
                trail.push(next.clone());
                let Ok(target) = fs::read_link(&next) else { break };
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                ahead.extend(backwards(&target));
            }
            Ok(kind) if kind.is_dir() && !ahead.is_empty() => at = next,
            _ => {
                trail.push(next);
                break;
            }
        }
    }
    trail
}

/// The names in a path, the last one first.
fn backwards(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let mut names: Vec<OsString> = names.map(|part| part.as_os_str().to_owned()).collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use notify::event::{CreateKind, Flag};

    use super::*;

    /// Long enough for a notice on the slowest machine.
    const ABSURDLY_LONG: Duration = Duration::from_secs(60);

    /// Arms a watch on the file, makes the change, and waits for the system's notice; looking cannot help, because no fingerprint is given.
    fn is_noticed(file: &Path, change: impl FnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut watch = Watch::start();
            watch.arm(&BTreeSet::from([file.to_owned()]));
            change();
            let nothing = Fingerprint::default();
            let noticed = tokio::time::timeout(ABSURDLY_LONG, watch.touched(&nothing)).await;
            assert_eq!(noticed, Ok(Notice::Told), "the change went unnoticed");
        });
    }

    #[test]
    fn writing_renaming_and_removing_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("file"), folder.path().join("other"));
        is_noticed(&file, || fs::write(&file, "one").unwrap());
        is_noticed(&file, || fs::write(&file, "two").unwrap());
        fs::write(&other, "three").unwrap();
        is_noticed(&file, || fs::rename(&other, &file).unwrap());
        is_noticed(&file, || fs::remove_file(&file).unwrap());
    }

    #[test]
    fn what_is_renamed_into_its_place_is_told_from_what_is_written_there() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("file"), folder.path().join("other"));
        fs::write(&file, "one").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut watch = Watch::start();
            watch.arm(&BTreeSet::from([file.clone()]));
            let nothing = Fingerprint::default();
            let rename = || {
                fs::write(&other, "two").unwrap();
                fs::rename(&other, &file).unwrap();
            };
            rename();
            watch.touched(&nothing).await;
            assert!(watch.only_renamed());
            watch.settle().await;
            fs::write(&file, "three").unwrap();
            watch.touched(&nothing).await;
            assert!(!watch.only_renamed());
            rename();
            assert!(!watch.only_renamed(), "not before it is quiet");
            watch.settle().await;
            assert!(watch.only_renamed());
        });
        assert!(!Watch::only_looking().only_renamed());
    }

    #[test]
    fn a_swapped_link_is_noticed_and_so_is_a_change_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("file"), version).unwrap();
        }
        symlink("1", at("current")).unwrap();
        symlink("current/file", at("file")).unwrap();
        is_noticed(&at("file"), || fs::write(at("1").join("file"), "one").unwrap());
        symlink("2", at("next")).unwrap();
        is_noticed(&at("file"), || fs::rename(at("next"), at("current")).unwrap());
        is_noticed(&at("file"), || fs::write(at("2").join("file"), "two").unwrap());
    }

    #[test]
    fn the_trail_names_every_link_and_survives_loops() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/deep")).unwrap();
        symlink("real", root.join("link")).unwrap();
        symlink("../../link/deep/end", root.join("real/deep/file")).unwrap();
        let expected = ["link", "real/deep/file", "link", "real/deep/end"].map(|name| root.join(name));
        assert_eq!(trail(&root.join("link/deep/file")), expected);
        assert_eq!(trail(&root.join("missing/file")), [root.join("missing")]);
        symlink("loop", root.join("loop")).unwrap();
        assert!(trail(&root.join("loop")).len() <= MOST_LINKS + 1);
    }

    #[test]
    fn only_changes_to_the_files_count() {
        let paths = HashSet::from([PathBuf::from("/etc/file")]);
        let about = |kind, path: &str| is_relevant(&Ok(Event::new(kind).add_path(path.into())), &paths);
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(about(written, "/etc/file"));
        assert!(about(EventKind::Create(CreateKind::File), "/etc/file"));
        assert!(!about(written, "/etc/other"));
        assert!(!about(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/etc/file"));
        assert!(!about(EventKind::Access(AccessKind::Close(AccessMode::Read)), "/etc/file"));
        assert!(is_relevant(&Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)), &paths));
    }
}
