//! What a control group (version 1 or 2) allows the process, and how much of it is in use.

use std::fs;
use std::path::{Path, PathBuf};

/// Looks at the group's statistics, which cost the kernel more than its counters, once in so many times.
const LOOKS_PER_STATISTICS: u32 = 10;

/// A group that bounds the memory of the process, and maybe of others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    folder: PathBuf,
    version: Version,
    limit: u64,
    looks: u32,
    /// Bytes of files' contents that the kernel gives up before anything else.
    reclaimable: u64,
}

/// The names of a version's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    limit: &'static str,
    usage: &'static str,
    reclaimable: &'static str,
}

const V1: Version = Version {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file ",
};
const V2: Version = Version { limit: "memory.max", usage: "memory.current", reclaimable: "inactive_file " };

/// What version 1 says for "none", rounded down to pages of any size.
const NO_LIMIT: u64 = 1 << 62;

impl Group {
    /// The nearest to a bound of the groups that this process is in, if one of them has any.
    pub(super) fn of_this_process() -> Option<Group> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        Group::find(&groups, Path::new("/sys/fs/cgroup"))
    }

    /// `groups` is what the kernel says of a process; `root` is where it shows groups.
    fn find(groups: &str, root: &Path) -> Option<Group> {
        let places = groups.lines().filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let path = path.trim_start_matches('/');
            match controllers {
                "" => Some((root.to_owned(), path, V2)),
                _ if controllers.split(',').any(|one| one == "memory") => {
                    Some((root.join("memory"), path, V1))
                }
                _ => None,
            }
        });
        let bounded = places.flat_map(|(root, path, version)| Group::bounded(&root, path, version));
        bounded.min_by_key(|group| group.limit)
    }

    /// A group and those around it, as far as they are bounded. In a container the path may be the one outside; then what is
    /// shown at the root is the group.
    fn bounded(root: &Path, path: &str, version: Version) -> Vec<Group> {
        let own = root.join(path);
        let folder = if own.join(version.limit).exists() { own } else { root.to_owned() };
        let around = folder.ancestors().take_while(|folder| folder.starts_with(root));
        let groups = around.filter_map(|folder| {
            let limit =
                number(&folder.join(version.limit)).filter(|limit| *limit > 0 && *limit < NO_LIMIT)?;
            Some(Group { folder: folder.to_owned(), version, limit, looks: 0, reclaimable: 0 })
        });
        groups.collect()
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes in use that cannot be given back at once.
    pub(super) fn used(&mut self) -> u64 {
        if self.looks.is_multiple_of(LOOKS_PER_STATISTICS) {
            self.reclaimable = self.reclaimable();
        }
        self.looks = self.looks.wrapping_add(1);
        number(&self.folder.join(self.version.usage)).unwrap_or(0).saturating_sub(self.reclaimable)
    }

    fn reclaimable(&self) -> u64 {
        let statistics = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let line = statistics.lines().find_map(|line| line.strip_prefix(self.version.reclaimable));
        line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
    }
}

/// The number in a file, if it holds one.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn the_narrowest_bound_of_version_2_counts() {
        let root = folder(&[
            ("pod/memory.max", "4000\n"),
            ("pod/memory.current", "900\n"),
            ("pod/memory.stat", "anon 500\nfile 400\ninactive_file 300\nactive_file 100\n"),
            ("pod/proxy/memory.max", "max\n"),
        ]);
        let mut group = Group::find("0::/pod/proxy\n", root.path()).unwrap();
        assert_eq!((group.limit(), group.used()), (4000, 600));
    }

    #[test]
    fn version_1_says_it_in_other_words() {
        let root = folder(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/a/memory.limit_in_bytes", "134217728\n"),
            ("memory/a/memory.usage_in_bytes", "5000\n"),
            ("memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 2000\n"),
        ]);
        let groups = "3:cpu,cpuacct:/\n4:hugetlb,memory:/a\n0::/\n";
        let mut group = Group::find(groups, root.path()).unwrap();
        assert_eq!((group.limit(), group.used()), (134_217_728, 3000));
    }

    #[test]
    fn a_path_from_outside_of_the_container_is_the_root_inside() {
        let root = folder(&[("memory.max", "1000"), ("memory.current", "10")]);
        let mut group = Group::find("0::/system.slice/docker-1.scope\n", root.path()).unwrap();
        assert_eq!((group.limit(), group.used()), (1000, 10));
    }

    #[test]
    fn without_a_bound_there_is_none() {
        let root =
            folder(&[("memory.max", "max\n"), ("memory/memory.limit_in_bytes", "9223372036854771712")]);
        for groups in ["", "0::/", "4:memory:/\n0::/\n", "nonsense\n:\n::\n"] {
            assert_eq!(Group::find(groups, root.path()), None, "{groups:?}");
        }
    }
}
