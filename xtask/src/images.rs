//! Container images without a container engine and without a registry: archives by content, kept in the cache,
//! loaded into the nodes of the rig.

mod archive;
mod debian;
mod patroni;
mod product;
pub(crate) mod template;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cache::{Cache, Key};
use crate::{command, packages, rig};
use archive::{Config, Layer};
use product::PRODUCTS;
pub(crate) use product::{TARGET, programs};

/// The image that holds a pod's namespaces.
pub(crate) const PAUSE: &str = "rig.test/pause:1";

/// Which images, and where to.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Put the archives into this directory, too.
    #[arg(long)]
    out: Option<PathBuf>,
    /// How to compile the product: a profile of cargo.
    #[arg(long, default_value = "release", global = true)]
    profile: String,
    /// Only images whose name contains this.
    #[arg(long, global = true)]
    only: Option<String>,
    /// Nothing of ours, but the image of another product that the benchmarks compare with.
    #[arg(long, global = true, value_enum, conflicts_with = "only")]
    peer: Option<Peer>,
}

/// A product to compare with. Its image is made when somebody asks for it, never in CI.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Peer {
    /// Patroni, the newest, with the same PostgreSQL as ours.
    Patroni,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Build what comes from this tree and load it into every running node of the rig.
    Load,
}

/// Makes images.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let cache = Cache::open()?;
    packages::ensure_installed()?;
    let wanted = |name: &str| {
        arguments.peer.is_none() && arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    };
    let products: Vec<_> = PRODUCTS.iter().filter(|product| wanted(product.reference)).collect();
    let built = if products.is_empty() {
        Vec::new()
    } else {
        product::ensure(&cache, &arguments.profile, &products)?
    };
    let mut images: Vec<(String, PathBuf)> =
        products.iter().map(|product| product.reference.to_owned()).zip(built).collect();
    if arguments.peer == Some(Peer::Patroni) {
        images.push((patroni::REFERENCE.to_owned(), patroni::ensure(&cache)?));
    }
    match arguments.action {
        Some(Action::Load) => {
            let archives: Vec<PathBuf> = images.iter().map(|(_, archive)| archive.clone()).collect();
            rig::load_images(&cache, &archives)?;
        }
        None => {
            if wanted(PAUSE) {
                images.push((PAUSE.to_owned(), pause(&cache)?));
            }
            for postgres in debian::MAJORS.iter().filter(|postgres| wanted(&postgres.reference())) {
                images.push((postgres.reference(), postgres.ensure(&cache)?));
            }
        }
    }
    for (name, archive) in images {
        let shown = match &arguments.out {
            Some(directory) => publish(&archive, directory)?,
            None => archive,
        };
        println!("{name}\t{}", shown.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The archives that every node of the rig has from its birth.
pub(crate) fn base(cache: &Cache) -> Result<Vec<PathBuf>> {
    let mut archives = vec![pause(cache)?];
    for postgres in &debian::MAJORS {
        archives.push(postgres.ensure(cache)?);
    }
    Ok(archives)
}

/// The archives of the PostgreSQL images by major version, made when they are missing.
pub(crate) fn postgres(cache: &Cache) -> Result<Vec<(u8, PathBuf)>> {
    debian::MAJORS.iter().map(|postgres| Ok((postgres.major(), postgres.ensure(cache)?))).collect()
}

fn pause(cache: &Cache) -> Result<PathBuf> {
    const SOURCE: &str = include_str!("../rig/images/pause.c");
    let config = Config { entrypoint: vec!["/pause".to_owned()], ..Config::default() };
    let key = Key::new("pause 1").with(SOURCE).with(PAUSE).with(config.fingerprint());
    cache.ensure("images", "pause", &key, ".tar", |path| {
        let scratch = tempfile::tempdir().context("making a directory for a program")?;
        let (source, program) = (scratch.path().join("pause.c"), scratch.path().join("pause"));
        std::fs::write(&source, SOURCE).context("writing a program")?;
        command::output(Command::new("gcc").args(["-static", "-O2", "-s", "-o"]).arg(&program).arg(&source))?;
        let layer = scratch.path().join("layer.tar");
        let mut tar = Layer::create(&layer)?;
        tar.program("pause", &program)?;
        tar.finish()?;
        archive::write(PAUSE, &config, &layer, path)
    })
}

/// Puts an archive into a directory under a name without its hash.
fn publish(archive: &std::path::Path, directory: &std::path::Path) -> Result<PathBuf> {
    std::fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let stem = archive.file_stem().unwrap_or_default().to_string_lossy();
    let name = stem.rsplit_once('-').map_or(&*stem, |(name, _hash)| name);
    let target = directory.join(format!("{name}.tar"));
    crate::cache::remove(&target)?;
    if std::fs::hard_link(archive, &target).is_err() {
        std::fs::copy(archive, &target).with_context(|| format!("copying to {}", target.display()))?;
    }
    Ok(target)
}
