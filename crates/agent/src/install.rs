//! The init container's work: the agent into the pod, and names for its user (P26).
//!
//! The image it runs in has no shell and no `cp`. Whatever UID the pod got, initdb and libpq need an entry for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use rustix::process::{getgid, getuid};

/// Flags of `matriarch-agent install`.
#[derive(Debug, Clone, Args)]
pub struct Install {
    /// The directory for the binary.
    #[arg(long, default_value = api::names::paths::BIN)]
    pub to: PathBuf,
    /// The passwd file to write; a `group` file goes beside it.
    #[arg(long, default_value = api::names::paths::PASSWD)]
    pub passwd: PathBuf,
}

/// Copies this executable and writes both files, each whole or not at all.
///
/// # Errors
/// Any of it failed; running it again is safe.
pub fn install(install: &Install) -> anyhow::Result<()> {
    let to = install.to.join("matriarch-agent");
    let copy = || {
        let mut from = File::open("/proc/self/exe")?;
        replace(&to, 0o755, |file| io::copy(&mut from, file).map(drop))
    };
    copy().with_context(|| format!("cannot copy the agent to {}", to.display()))?;

    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let group = install.passwd.with_file_name("group");
    for (path, text) in [(&install.passwd, passwd(uid, gid)), (&group, groups(gid))] {
        replace(path, 0o644, |file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    tracing::info!(agent = %to.display(), uid, gid, "installed");
    Ok(())
}

/// The first entry for a number wins, so ours comes first; root stays known by name.
fn passwd(uid: u32, gid: u32) -> String {
    let mut text = format!("postgres:x:{uid}:{gid}:PostgreSQL:/tmp:/sbin/nologin\n");
    if uid != 0 {
        text.push_str("root:x:0:0:root:/root:/sbin/nologin\n");
    }
    text
}

fn groups(gid: u32) -> String {
    let mut text = format!("postgres:x:{gid}:\n");
    if gid != 0 {
        text.push_str("root:x:0:\n");
    }
    text
}

fn replace(path: &Path, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = directory.join(format!(".{name}.new"));
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    write(&mut file)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode))?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)
}
