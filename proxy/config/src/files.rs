//! The files that a configuration refers to: where they are, and the list of those looked at, which a reloader watches.

use std::path::{Component, Path, PathBuf};

/// Files looked at, in the order they were met, each once.
pub(crate) struct Files {
    base: PathBuf,
    seen: Vec<PathBuf>,
}

impl Files {
    /// Relative paths are resolved against `base`.
    pub(crate) fn new(base: &Path) -> Self {
        Self { base: base.to_owned(), seen: Vec::new() }
    }

    /// The path that a name in the file stands for; it counts as looked at.
    pub(crate) fn resolve(&mut self, name: &str) -> PathBuf {
        let path = self.locate(name);
        if !self.seen.contains(&path) {
            self.seen.push(path.clone());
        }
        path
    }

    /// The same for a file that is only written to.
    pub(crate) fn locate(&self, name: &str) -> PathBuf {
        // `..` stays: with symbolic links, `a/..` need not be where `a` is.
        self.base.join(name).components().filter(|part| *part != Component::CurDir).collect()
    }

    pub(crate) fn into_seen(self) -> Vec<PathBuf> {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_to_the_configuration() {
        let mut files = Files::new(Path::new("/etc/meshgate"));
        assert_eq!(files.resolve("./a.wasm"), Path::new("/etc/meshgate/a.wasm"));
        assert_eq!(files.resolve("../b.wasm"), Path::new("/etc/meshgate/../b.wasm"));
        assert_eq!(files.resolve("/c.wasm"), Path::new("/c.wasm"));
        files.resolve("a.wasm");
        assert_eq!(files.into_seen().len(), 3);
        assert_eq!(Files::new(Path::new("")).locate("./a.wasm"), Path::new("a.wasm"));
    }
}
