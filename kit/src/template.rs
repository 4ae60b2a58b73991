//! A new filter's crate: the files of `kit/template` with its name in them. Used by `meshgate filter new`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// The files, with `NAME`, `TYPE` and `SDK` for what differs.
const FILES: [(&str, &str); 6] = [
    ("Cargo.toml", include_str!("../template/Cargo.toml.in")),
    ("src/lib.rs", include_str!("../template/src/lib.rs.in")),
    ("meshgate.yaml", include_str!("../template/meshgate.yaml.in")),
    ("cases/greeting.yaml", include_str!("../template/cases/greeting.yaml.in")),
    ("README.md", include_str!("../template/README.md.in")),
    (".gitignore", "/target\n"),
];

/// Longest name of a filter, in bytes.
const LONGEST: usize = 64;

/// Where a new crate gets the SDK from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sdk {
    /// A folder, such as `sdk` in a clone of this repository.
    Folder(PathBuf),
    /// The repository, at the version of this program.
    Repository,
}

impl Sdk {
    /// The folder of the clone that this program was built in, if that is still there; else the repository.
    #[must_use]
    pub fn nearest() -> Sdk {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("sdk");
        if folder.join("Cargo.toml").is_file() { Sdk::Folder(folder) } else { Sdk::Repository }
    }

    /// As a dependency in `Cargo.toml`.
    fn dependency(&self) -> String {
        match self {
            Sdk::Folder(folder) => format!("{{ path = {:?} }}", folder.display().to_string()),
            Sdk::Repository => {
                format!(
                    "{{ git = {:?}, tag = \"v{}\" }}",
                    env!("CARGO_PKG_REPOSITORY"),
                    env!("CARGO_PKG_VERSION")
                )
            }
        }
    }
}

/// Makes the crate `name` in `folder`, which must be empty or not be there.
///
/// # Errors
/// The name is not one for a filter, something is in the folder already, or it cannot be written to.
pub fn create(name: &str, folder: &Path, sdk: &Sdk) -> Result<()> {
    check(name)?;
    if let Sdk::Folder(folder) = sdk {
        ensure!(folder.join("Cargo.toml").is_file(), "there is no crate in {}", folder.display());
    }
    let is_empty = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    ensure!(is_empty, "{} is not empty: nothing was changed", folder.display());
    for (path, content) in FILES {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        let content = content.replace("NAME", name).replace("TYPE", &type_name(name));
        let content = content.replace("SDK", &sdk.dependency());
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A name is a cargo package's, a file's and a key's in YAML at once.
fn check(name: &str) -> Result<()> {
    let begins_well = name.starts_with(|first: char| first.is_ascii_lowercase());
    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    if !begins_well || !name.chars().all(is_plain) || name.ends_with('-') || name.contains("--") {
        bail!(
            "{name:?} is no name for a filter: lowercase letters, digits and single dashes are, like `api-key`"
        );
    }
    ensure!(name.len() <= LONGEST, "the name is longer than {LONGEST} letters");
    ensure!(!RESERVED.contains(&name), "{name:?} means something else to cargo: take another name");
    Ok(())
}

/// What cargo or Rust would refuse as a package's name, as far as it is made of the letters above.
const RESERVED: [&str; 46] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "pub",
    "ref",
    "return",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "true",
    "type",
    "use",
    "meshgate-sdk",
    "schemars",
    "self",
    "serde",
];

/// `api-key` → `ApiKeyFilter`, which nothing else is called.
fn type_name(name: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    name.split('-').map(capital).chain(["Filter".to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "api-key", "v2", "a-1"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = "a".repeat(LONGEST + 1);
        for bad in ["", "A", "1a", "-a", "a-", "a--b", "a_b", "ä", "a b", "../a", "fn", "test", &long] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(type_name("api-key-2"), "ApiKey2Filter");
    }

    #[test]
    fn a_crate_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("greeter");
        create("greeter", &folder, &Sdk::nearest()).unwrap();
        let read = |path: &str| fs::read_to_string(folder.join(path)).unwrap();
        assert!(read("src/lib.rs").contains("impl Filter for GreeterFilter"));
        assert!(read("Cargo.toml").contains("name = \"greeter\"") && read("Cargo.toml").contains("/sdk\""));
        assert!(read("meshgate.yaml").contains("target/filters/greeter.wasm"));
        for (path, _) in FILES {
            let text = read(path);
            assert!(!["NAME", "TYPE", "SDK"].iter().any(|word| text.contains(word)), "{path}:\n{text}");
        }
        fs::write(folder.join("src/lib.rs"), "mine").unwrap();
        assert!(create("greeter", &folder, &Sdk::Repository).unwrap_err().to_string().contains("not empty"));
        assert_eq!(read("src/lib.rs"), "mine");
    }

    #[test]
    fn the_sdk_is_where_it_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Sdk::Folder(folder.path().join("nowhere"));
        assert!(create("greeter", &folder.path().join("new"), &missing).is_err());
        create("greeter", folder.path(), &Sdk::Repository).unwrap();
        let text = fs::read_to_string(folder.path().join("Cargo.toml")).unwrap();
        assert!(text.contains("git = \"https://") && text.contains("tag = \"v"), "{text}");
    }
}
