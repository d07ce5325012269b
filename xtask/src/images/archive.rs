//! Writes container images as archives that `ctr images import` and every other container tool reads.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::cache::hexadecimal;
use crate::command;

/// How a container of an image starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    /// `NAME=value` each.
    pub(crate) environment: Vec<String>,
    /// Program and arguments.
    pub(crate) entrypoint: Vec<String>,
    /// User, by name or number.
    pub(crate) user: String,
    /// Where it starts.
    pub(crate) directory: String,
}

impl Config {
    /// What of this belongs into a key.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{self:?}")
    }
}

/// Writes an image of one layer. `layer` is a tar file; the same input gives the same bytes.
pub(crate) fn write(reference: &str, config: &Config, layer: &Path, archive: &Path) -> Result<()> {
    let digest = sha256(layer)?;
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": config.environment, "Entrypoint": config.entrypoint, "User": config.user,
                   "WorkingDir": config.directory},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "history": [{"created_by": "cargo xtask images"}],
    })
    .to_string();
    let name = hexadecimal(&Sha256::digest(&config)) + ".json";
    let manifest =
        json!([{"Config": name, "RepoTags": [reference], "Layers": [format!("{digest}/layer.tar")]}])
            .to_string();

    let file = File::create(archive).with_context(|| format!("creating {}", archive.display()))?;
    let mut tar = Builder::new(file);
    add_file(&mut tar, &name, 0o644, config.as_bytes())?;
    let mut contents = File::open(layer).with_context(|| format!("opening {}", layer.display()))?;
    let size = contents.metadata().context("asking for a size")?.len();
    add(&mut tar, &format!("{digest}/layer.tar"), EntryType::Regular, 0o644, size, &mut contents)?;
    add_file(&mut tar, "manifest.json", 0o644, manifest.as_bytes())?;
    tar.into_inner().and_then(|file| file.sync_all()).context("finishing an image")
}

/// Writes the tar file of a layer entry by entry.
pub(crate) struct Layer(Builder<File>);

impl Layer {
    /// An empty layer.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(Builder::new(file)))
    }

    /// A directory; its name ends with a slash.
    pub(crate) fn directory(&mut self, name: &str, mode: u32) -> Result<()> {
        add(&mut self.0, name, EntryType::Directory, mode, 0, &mut std::io::empty())
    }

    /// A small file.
    pub(crate) fn file(&mut self, name: &str, mode: u32, contents: &[u8]) -> Result<()> {
        add_file(&mut self.0, name, mode, contents)
    }

    /// A copy of a program.
    pub(crate) fn program(&mut self, name: &str, source: &Path) -> Result<()> {
        let contents = std::fs::read(source).with_context(|| format!("reading {}", source.display()))?;
        add_file(&mut self.0, name, 0o755, &contents)
    }

    /// The end.
    pub(crate) fn finish(self) -> Result<()> {
        self.0.into_inner().map(drop).context("finishing a layer")
    }
}

/// The SHA-256 of a file in hexadecimal. The system's own program does it: an unoptimised build of ours
/// would take a minute for a root file system.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let line = command::output(Command::new("sha256sum").arg("--").arg(path))?;
    line.split_whitespace()
        .next()
        .map(|word| word.trim_start_matches('\\').to_owned())
        .context("sha256sum says nothing")
}

fn add_file(tar: &mut Builder<File>, name: &str, mode: u32, contents: &[u8]) -> Result<()> {
    add(tar, name, EntryType::Regular, mode, contents.len() as u64, &mut &contents[..])
}

fn add(
    tar: &mut Builder<File>,
    name: &str,
    kind: EntryType,
    mode: u32,
    size: u64,
    contents: &mut dyn Read,
) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, name, contents).with_context(|| format!("adding {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let layer = directory.path().join("layer.tar");
            let mut tar = Layer::create(&layer).unwrap();
            tar.directory("tmp/", 0o1777).unwrap();
            tar.file("etc/passwd", 0o644, b"nobody:x:65532:65532::/:/nowhere\n").unwrap();
            tar.finish().unwrap();
            let archive = directory.path().join(name);
            write("rig.test/x:1", &Config::default(), &layer, &archive).unwrap();
            std::fs::read(archive).unwrap()
        };
        assert_eq!(make("one"), make("two"));
    }
}
