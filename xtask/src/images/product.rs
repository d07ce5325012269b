//! The product's own image and the test client's: static programs and nothing else, no shell, no root.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::archive::{self, Config, Layer};
use crate::cache::{Cache, Key};
use crate::{command, this};

/// The target whose programs run in any image.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-musl";
/// Who the programs run as.
const USER: u32 = 65532;

/// One image made of programs of this workspace.
pub(crate) struct Product {
    /// Its name.
    pub(crate) reference: &'static str,
    file: &'static str,
    /// Programs, each of the package of the same name.
    programs: &'static [&'static str],
    entrypoint: &'static str,
}

/// Everything that is built from this tree.
pub(crate) const PRODUCTS: [Product; 2] = [
    Product {
        reference: "rig.test/matriarch:dev",
        file: "matriarch",
        programs: &["matriarch-agent", "matriarch-operator", "matriarch-elector"],
        entrypoint: "/usr/local/bin/matriarch-operator",
    },
    Product {
        reference: "rig.test/matriarch-client:dev",
        file: "matriarch-client",
        programs: &["matriarch-client"],
        entrypoint: "/usr/local/bin/matriarch-client",
    },
];

/// Builds the programs and packs the images; what has not changed is found again.
pub(crate) fn ensure(cache: &Cache, profile: &str, products: &[&Product]) -> Result<Vec<PathBuf>> {
    let directory = programs(profile, &[])?;
    products.iter().map(|product| product.pack(cache, &directory)).collect()
}

/// Builds all programs, and these, and returns the directory they are in.
pub(crate) fn programs(profile: &str, more: &[&str]) -> Result<PathBuf> {
    // All of them, whichever are wanted: for fewer packages cargo would choose other features of what they share
    // and compile that anew, now and the next time back again.
    let programs = PRODUCTS.iter().flat_map(|product| product.programs).chain(more);
    let programs: Vec<&str> = programs.copied().collect();
    build(profile, &programs)
}

impl Product {
    fn pack(&self, cache: &Cache, directory: &Path) -> Result<PathBuf> {
        let config = Config {
            environment: vec!["PATH=/usr/local/bin".to_owned()],
            entrypoint: vec![self.entrypoint.to_owned()],
            user: format!("{USER}:{USER}"),
            directory: "/".to_owned(),
        };
        let mut key = Key::new("product 1").with(self.reference).with(config.fingerprint());
        for program in self.programs {
            key = key.with(archive::sha256(&directory.join(program))?);
        }
        cache.ensure("images", self.file, &key, ".tar", |path| {
            let scratch = tempfile::tempdir_in(cache.root()).context("making a directory for a layer")?;
            let layer = scratch.path().join("layer.tar");
            let mut tar = Layer::create(&layer)?;
            for directory in ["etc/", "usr/", "usr/local/", "usr/local/bin/"] {
                tar.directory(directory, 0o755)?;
            }
            tar.directory("tmp/", 0o1777)?;
            tar.file("etc/passwd", 0o644, format!("nobody:x:{USER}:{USER}:nobody:/:/nowhere\n").as_bytes())?;
            tar.file("etc/group", 0o644, format!("nobody:x:{USER}:\n").as_bytes())?;
            for program in self.programs {
                tar.program(&format!("usr/local/bin/{program}"), &directory.join(program))?;
            }
            tar.finish()?;
            archive::write(self.reference, &config, &layer, path)
        })
    }
}

/// Compiles programs for [`TARGET`] and returns the directory they are in.
fn build(profile: &str, programs: &[&str]) -> Result<PathBuf> {
    let targets =
        command::output(&mut command::command("rustc", ["--print", "target-libdir", "--target", TARGET]))?;
    if !Path::new(targets.trim()).exists() {
        command::run(
            &format!("add the target {TARGET}"),
            command::command("rustup", ["target", "add", TARGET]),
        )?;
    }
    let mut build = this::cargo(["build", "--locked", "--target", TARGET, "--profile", profile]);
    for program in programs {
        build.args(["--package", program, "--bin", program]);
    }
    build.env(format!("CC_{}", TARGET.replace('-', "_")), "musl-gcc");
    command::run(&format!("build {} ({profile})", programs.join(", ")), build)?;

    let mut metadata = this::cargo(["metadata", "--format-version=1", "--no-deps", "--locked"]);
    let metadata: Value =
        serde_json::from_str(&command::output(&mut metadata)?).context("reading what cargo metadata says")?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    let directory = if profile == "dev" { "debug" } else { profile };
    let directory = Path::new(target).join(TARGET).join(directory);
    for program in programs {
        ensure_static(&directory.join(program))?;
    }
    Ok(directory)
}

/// A program that needs a loader does not start in an image that has none.
fn ensure_static(program: &Path) -> Result<()> {
    let bytes = std::fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    ensure!(!is_dynamic(&bytes), "{} is not static", program.display());
    Ok(())
}

/// Whether an ELF file asks for a program interpreter (a header of type 3).
fn is_dynamic(elf: &[u8]) -> bool {
    let number = |offset: usize, bytes: usize| -> Option<usize> {
        let field = elf.get(offset..offset.checked_add(bytes)?)?;
        field
            .iter()
            .rev()
            .try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))
    };
    let (Some(table), Some(size), Some(count)) = (number(0x20, 8), number(0x36, 2), number(0x38, 2)) else {
        return true;
    };
    (0..count).any(|index| number(table.saturating_add(index * size), 4).is_none_or(|kind| kind == 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_dynamic() {
        assert!(is_dynamic(&std::fs::read("/bin/true").unwrap()));
        assert!(is_dynamic(b"short"));
    }
}
