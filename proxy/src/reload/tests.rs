//! The reloader on real directories. A test waits for what it expects to see, however long that takes, and fails only when it takes absurdly long; each
//! runs with notice from the operating system and again without.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::*;

/// Something to do once, soon.
type Interruption = Rc<RefCell<Option<Box<dyn FnOnce()>>>>;

const ABSURDLY_LONG: Duration = Duration::from_secs(60);

/// Loads one file whose text is the version; the text `bad` is refused, and `also <name>` refers to a second file, whose text is added.
/// A second file `pair` can be renewed, unless its text begins with `half`; a load refuses that as well.
struct OneFile {
    path: PathBuf,
    /// Done in the middle of the next load, after the file was read.
    interruption: Interruption,
    /// Every outcome.
    seen: mpsc::UnboundedSender<Result<String, String>>,
}

impl OneFile {
    fn load(&self) -> ReloadOutcome {
        let mut files = vec![self.path.clone()];
        let result = fs::read_to_string(&self.path).map_err(|error| error.to_string()).and_then(|text| {
            if let Some(interruption) = self.interruption.take() {
                interruption();
            }
            match text.strip_prefix("also ") {
                Some(name) => {
                    files.push(self.path.with_file_name(name));
                    let second = fs::read_to_string(&files[1]).map_err(|error| error.to_string())?;
                    if second.starts_with("half") { Err(second) } else { Ok(format!("{text}: {second}")) }
                }
                None if text == "bad" => Err("bad".to_owned()),
                None => Ok(text),
            }
        });
        ReloadOutcome { result, files }
    }
}

impl Rebuild for OneFile {
    async fn rebuild(&mut self) -> ReloadOutcome {
        let outcome = self.load();
        self.seen.send(outcome.result.clone()).unwrap();
        outcome
    }

    fn renewable(&self) -> BTreeSet<PathBuf> {
        BTreeSet::from([self.path.with_file_name("pair")])
    }

    async fn renew(&mut self) -> Option<String> {
        let text = fs::read_to_string(self.path.with_file_name("pair")).ok()?;
        let renewed = (!text.starts_with("half")).then(|| format!("renewed: {text}"))?;
        self.seen.send(Ok(renewed.clone())).unwrap();
        Some(renewed)
    }
}

/// A reloader at work on a file, and what the test sees of it.
struct Fixture {
    folder: TempDir,
    registry: Registry,
    handle: ReloadHandle,
    seen: mpsc::UnboundedReceiver<Result<String, String>>,
    interruption: Interruption,
}

impl Fixture {
    /// Starts in a new folder, in which `prepare` makes the file and says where it is.
    fn start(watch: Watch, prepare: impl FnOnce(&Path) -> PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = prepare(folder.path());
        let (sender, seen) = mpsc::unbounded_channel();
        let interruption = Rc::default();
        let file = OneFile { path, interruption: Rc::clone(&interruption), seen: sender };
        let began = SystemTime::now();
        let first = file.load();
        let first = FirstLoad { version: first.result.unwrap(), files: first.files, began };
        let registry = Registry::new();
        let (reloader, handle) = Reloader::with_watch(file, first, &registry, watch);
        tokio::task::spawn_local(reloader.run());
        Self { folder, registry, handle, seen, interruption }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits for a load with this result; others may come before it.
    async fn until(&mut self, expected: &Result<&str, &str>) {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        let wait = async {
            loop {
                let seen = self.seen.recv().await.unwrap();
                if seen == expected {
                    return;
                }
            }
        };
        let waited = tokio::time::timeout(ABSURDLY_LONG, wait).await;
        waited.unwrap_or_else(|_| panic!("never saw {expected:?}; last: {:?}", self.handle.status()));
    }
}

fn simple(text: &'static str) -> impl Fn(&Path) -> PathBuf + Copy {
    move |folder| {
        let path = folder.join("meshgate.yaml");
        fs::write(&path, text).unwrap();
        path
    }
}

/// Runs a test with both kinds of watch.
fn with_both<T: Future<Output = ()>>(test: impl Fn(Watch) -> T) {
    for watch in [Watch::start, Watch::only_looking] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(LocalSet::new().run_until(async { test(watch()).await }));
    }
}

#[test]
fn a_rewritten_file_is_loaded_again() {
    with_both(async |watch| {
        let mut fixture = Fixture::start(watch, simple("one"));
        fs::write(fixture.path("meshgate.yaml"), "two").unwrap();
        fixture.until(&Ok("two")).await;
    });
}

#[test]
fn a_half_written_file_is_refused_and_the_whole_one_loaded() {
    with_both(async |watch| {
        let mut fixture = Fixture::start(watch, simple("one"));
        fs::write(fixture.path("meshgate.yaml"), "bad").unwrap();
        fixture.until(&Err("bad")).await;
        fs::write(fixture.path("meshgate.yaml"), "bad no more").unwrap();
        fixture.until(&Ok("bad no more")).await;
    });
}

#[test]
fn a_file_renamed_over_the_old_one_is_seen() {
    with_both(async |watch| {
        let mut fixture = Fixture::start(watch, simple("one"));
        for version in ["two", "three", "four"] {
            fs::write(fixture.path(".meshgate.yaml.swp"), version).unwrap();
            fs::rename(fixture.path(".meshgate.yaml.swp"), fixture.path("meshgate.yaml")).unwrap();
            fixture.until(&Ok(version)).await;
        }
    });
}

#[test]
fn a_swapped_link_to_the_directory_is_seen() {
    // As Kubernetes mounts a ConfigMap: meshgate.yaml -> ..data/meshgate.yaml, ..data -> ..<time>, replaced by renaming another link onto it.
    with_both(async |watch| {
        let mut fixture = Fixture::start(watch, |folder| {
            fs::create_dir(folder.join("..1")).unwrap();
            fs::write(folder.join("..1/meshgate.yaml"), "1").unwrap();
            symlink("..1", folder.join("..data")).unwrap();
            symlink("..data/meshgate.yaml", folder.join("meshgate.yaml")).unwrap();
            folder.join("meshgate.yaml")
        });
        for version in 2..5 {
            let directory = fixture.path(&format!("..{version}"));
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("meshgate.yaml"), version.to_string()).unwrap();
            symlink(format!("..{version}"), fixture.path("..data_tmp")).unwrap();
            fs::rename(fixture.path("..data_tmp"), fixture.path("..data")).unwrap();
            fs::remove_dir_all(fixture.path(&format!("..{}", version - 1))).unwrap();
            fixture.until(&Ok(&version.to_string())).await;
        }
    });
}

#[test]
fn a_removed_file_is_refused_and_seen_when_it_returns() {
    with_both(async |watch| {
        let mut fixture = Fixture::start(watch, simple("one"));
        let missing = fs::read_to_string("/nonexistent").unwrap_err().to_string();
        fs::remove_file(fixture.path("meshgate.yaml")).unwrap();
        fixture.until(&Err(&missing)).await;
        assert_eq!(fixture.handle.status().version, "one");
        fs::write(fixture.path("meshgate.yaml"), "two").unwrap();
        fixture.until(&Ok("two")).await;
    });
}

#[test]
fn a_removed_folder_is_seen_when_it_returns() {
    with_both(async |watch| {
        let mut fixture = Fixture::start(watch, |folder| {
            fs::create_dir(folder.join("etc")).unwrap();
            simple("one")(&folder.join("etc"))
        });
        let missing = fs::read_to_string("/nonexistent").unwrap_err().to_string();
        fs::remove_dir_all(fixture.path("etc")).unwrap();
        fixture.until(&Err(&missing)).await;
        fs::create_dir(fixture.path("etc")).unwrap();
        fs::write(fixture.path("etc/meshgate.yaml"), "two").unwrap();
        fixture.until(&Ok("two")).await;
        fs::write(fixture.path("etc/meshgate.yaml"), "three").unwrap();
        fixture.until(&Ok("three")).await;
    });
}

#[test]
fn the_last_of_many_changes_is_seen() {
    with_both(async |watch| {
        let mut fixture = Fixture::start(watch, simple("0"));
        for version in 1..=100 {
            fs::write(fixture.path("meshgate.yaml"), version.to_string()).unwrap();
            tokio::task::yield_now().await;
        }
        fixture.until(&Ok("100")).await;
    });
}

#[test]
fn a_file_that_is_referred_to_is_watched() {
    with_both(async |watch| {
        let mut fixture = Fixture::start(watch, simple("one"));
        fs::write(fixture.path("second"), "x").unwrap();
        fs::write(fixture.path("meshgate.yaml"), "also second").unwrap();
        fixture.until(&Ok("also second: x")).await;
        fs::write(fixture.path("second"), "y").unwrap();
        fixture.until(&Ok("also second: y")).await;
    });
}

#[test]
fn what_a_refused_configuration_refers_to_is_watched_too() {
    with_both(async |watch| {
        let mut fixture = Fixture::start(watch, simple("one"));
        let missing = fs::read_to_string("/nonexistent").unwrap_err().to_string();
        fs::write(fixture.path("meshgate.yaml"), "also later").unwrap();
        fixture.until(&Err(&missing)).await;
        fs::write(fixture.path("later"), "here").unwrap();
        fixture.until(&Ok("also later: here")).await;
    });
}

#[test]
fn a_change_in_the_middle_of_a_load_is_not_missed() {
    with_both(async |watch| {
        let mut fixture = Fixture::start(watch, simple("one"));
        let path = fixture.path("meshgate.yaml");
        *fixture.interruption.borrow_mut() = Some(Box::new(move || fs::write(path, "six").unwrap()));
        fs::write(fixture.path("meshgate.yaml"), "two").unwrap();
        fixture.until(&Ok("two")).await;
        fixture.until(&Ok("six")).await;
    });
}

#[test]
fn a_change_in_the_middle_of_the_first_load_is_not_missed() {
    with_both(async |watch| {
        let (sender, mut seen) = mpsc::unbounded_channel();
        let folder = tempfile::tempdir().unwrap();
        let file = OneFile { path: simple("one")(folder.path()), interruption: Rc::default(), seen: sender };
        let began = SystemTime::now();
        let first = file.load();
        fs::write(&file.path, "two").unwrap();
        let first = FirstLoad { version: first.result.unwrap(), files: first.files, began };
        let (reloader, _handle) = Reloader::with_watch(file, first, &Registry::new(), watch);
        tokio::task::spawn_local(reloader.run());
        let seen = tokio::time::timeout(ABSURDLY_LONG, seen.recv()).await.expect("the change was missed");
        assert_eq!(seen, Some(Ok("two".to_owned())));
    });
}

#[test]
fn a_rewrite_with_the_same_content_is_no_change() {
    with_both(async |watch| {
        let (sender, _seen) = mpsc::unbounded_channel();
        let folder = tempfile::tempdir().unwrap();
        let file = OneFile { path: simple("one")(folder.path()), interruption: Rc::default(), seen: sender };
        let path = file.path.clone();
        let first =
            FirstLoad { version: "one".to_owned(), files: vec![path.clone()], began: SystemTime::now() };
        let (mut reloader, _handle) = Reloader::with_watch(file, first, &Registry::new(), watch);
        reloader.attempt().await;
        fs::write(folder.path().join("again"), "one").unwrap();
        fs::rename(folder.path().join("again"), &path).unwrap();
        assert!(reloader.loaded.is_doubtful(), "another file under the same name");
        assert!(!reloader.has_changed().await, "but with the same content");
        fs::write(&path, "six").unwrap();
        assert!(reloader.has_changed().await, "other content of the same length");
    });
}

#[test]
fn asking_reloads_without_a_change_and_answers_the_result() {
    with_both(async |watch| {
        let fixture = Fixture::start(watch, simple("one"));
        let status = fixture.handle.reload().await.unwrap();
        assert_eq!((status.version.as_str(), status.error), ("one", None));
        fs::write(fixture.path("meshgate.yaml"), "bad").unwrap();
        let status = fixture.handle.reload().await.unwrap();
        assert_eq!((status.version.as_str(), status.error.as_deref()), ("one", Some("bad")));
        let metrics = fixture.registry.render();
        for line in [
            "meshgate_config_last_reload_successful 0\n",
            "meshgate_config_info{version=\"one\"} 1\n",
            "meshgate_reloads_total{result=\"failure\"} ",
        ] {
            assert!(metrics.contains(line), "no {line:?} in\n{metrics}");
        }
    });
}

/// Runs a test on a configuration that refers to the file `pair`, with the system's notice: without it, nothing is renewed.
fn with_a_pair<T: Future<Output = ()>>(test: impl Fn(Fixture) -> T) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        let mut fixture = Fixture::start(Watch::start(), |folder| {
            fs::write(folder.join("pair"), "1").unwrap();
            simple("also pair")(folder)
        });
        // Files as new as these are loaded again at the start, or not, as the clock has it.
        fixture.handle.reload().await.unwrap();
        while fixture.seen.try_recv().is_ok() {}
        test(fixture).await;
    }));
}

impl Fixture {
    fn rename(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    /// The result of the next load or renewal.
    async fn next(&mut self) -> Result<String, String> {
        let next = tokio::time::timeout(ABSURDLY_LONG, self.seen.recv()).await;
        next.expect("nothing was loaded").expect("the reloader lives")
    }
}

#[test]
fn what_is_renewed_by_a_renaming_is_taken_without_a_load() {
    with_a_pair(async |mut fixture| {
        let before = fixture.handle.status().attempts;
        for text in ["2", "3"] {
            fixture.rename("pair", text);
            let renewed = format!("renewed: {text}");
            assert_eq!(fixture.next().await, Ok(renewed.clone()));
            fixture.handle.status.wait_for(|status| status.version == renewed).await.unwrap();
        }
        assert_eq!(fixture.handle.status().attempts, before + 2);
        // The next that is seen is this, and nothing in between.
        fs::write(fixture.path("meshgate.yaml"), "two").unwrap();
        assert_eq!(fixture.next().await, Ok("two".to_owned()));
    });
}

#[test]
fn what_is_written_in_its_place_is_not_taken_before_it_is_quiet() {
    with_a_pair(async |mut fixture| {
        fs::write(fixture.path("pair"), "2").unwrap();
        assert_eq!(fixture.next().await, Ok("also pair: 2".to_owned()));
    });
}

#[test]
fn what_changes_together_with_other_files_is_loaded_with_them() {
    with_a_pair(async |mut fixture| {
        fixture.rename("meshgate.yaml", "also pair ");
        fixture.rename("pair", "2");
        let missing = fs::read_to_string("/nonexistent").unwrap_err().to_string();
        assert_eq!(fixture.next().await, Err(missing));
    });
}

#[test]
fn half_of_what_is_renewed_is_refused_and_the_whole_mends_it() {
    with_a_pair(async |mut fixture| {
        fixture.rename("pair", "half");
        assert_eq!(fixture.next().await, Err("half".to_owned()));
        fixture.rename("pair", "2");
        assert_eq!(fixture.next().await, Ok("renewed: 2".to_owned()));
        assert_eq!(fixture.next().await, Ok("also pair: 2".to_owned()));
        fixture.handle.status.wait_for(|status| status.error.is_none()).await.unwrap();
    });
}
