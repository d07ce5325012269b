//! Where everything lives that is made but not kept in the tree, and how it is named: by the hash of what
//! it was made from, so that a second run makes nothing and a changed recipe never meets an old result.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

/// The directory of everything that can be made again.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$MATRIARCH_CACHE`, or `~/.cache/matriarch`.
    pub(crate) fn open() -> Result<Self> {
        let root = match std::env::var_os("MATRIARCH_CACHE") {
            Some(path) => PathBuf::from(path),
            None => {
                PathBuf::from(std::env::var_os("HOME").context("neither MATRIARCH_CACHE nor HOME is set")?)
                    .join(".cache/matriarch")
            }
        };
        ensure!(root.is_absolute(), "MATRIARCH_CACHE must be an absolute path");
        // A node of the rig mounts its own file systems over these.
        ensure!(
            !["/run", "/var/log", "/proc", "/sys"].iter().any(|hidden| root.starts_with(hidden)),
            "MATRIARCH_CACHE must not be under /run, /var/log, /proc or /sys"
        );
        fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
        Ok(Self { root })
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the cache.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// The path `kind/name-key`, made by `make` when it is not there yet. `make` gets a path of its own and
    /// its result appears under the final name only when it is whole.
    pub(crate) fn ensure(
        &self,
        kind: &str,
        name: &str,
        key: &Key,
        suffix: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let directory = self.path(kind);
        let finished = directory.join(format!("{name}-{}{suffix}", key.text()));
        if finished.exists() {
            return Ok(finished);
        }
        let partial = directory.join(format!(".{name}-{}.{}", key.text(), std::process::id()));
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let outcome = make(&partial).and_then(|()| {
            fs::rename(&partial, &finished).with_context(|| format!("naming {}", finished.display()))
        });
        if outcome.is_err() {
            let _ = remove(&partial);
        }
        outcome.map(|()| finished)
    }
}

/// Removes a file or a directory with all it holds; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let outcome = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
    };
    outcome.with_context(|| format!("removing {}", path.display()))
}

/// The hash of everything that something is made from.
#[derive(Clone)]
pub(crate) struct Key(Sha256);

impl Key {
    /// A key of one kind of thing; raise its version when the making itself changes.
    pub(crate) fn new(kind: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(kind);
        Self(hash)
    }

    /// Adds one ingredient. Lengths are part of the hash, so that "ab" and "c" differ from "a" and "bc".
    #[must_use]
    pub(crate) fn with(mut self, ingredient: impl AsRef<[u8]>) -> Self {
        let bytes = ingredient.as_ref();
        self.0.update(bytes.len().to_le_bytes());
        self.0.update(bytes);
        self
    }

    fn text(&self) -> String {
        let digest = self.0.clone().finalize();
        hexadecimal(digest.get(..8).unwrap_or_default())
    }
}

/// Bytes as text, two digits each.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingredients_do_not_run_into_each_other() {
        let one = Key::new("x").with("ab").with("c").text();
        let other = Key::new("x").with("a").with("bc").text();
        assert_ne!(one, other);
    }

    #[test]
    fn what_failed_half_way_is_not_found_later() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache { root: directory.path().to_owned() };
        let key = Key::new("x");
        let failed = cache.ensure("k", "n", &key, "", |path| {
            fs::write(path, "half")?;
            anyhow::bail!("no")
        });
        assert!(failed.is_err());
        let path = cache.ensure("k", "n", &key, "", |path| Ok(fs::write(path, "whole")?)).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "whole");
        assert_eq!(fs::read_dir(directory.path().join("k")).unwrap().count(), 1);
    }
}
