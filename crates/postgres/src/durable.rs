//! Files that survive a crash at any instruction.
//!
//! Decides the order of write, fsync, rename and fsync of the directory. Must never leave a reader with half a file,
//! nor return before the new content is durable. Proved by `tests::a_write_replaces_whole_files` and
//! `tests::a_write_whose_act_was_dropped_never_lands_after_a_later_one`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use tokio::sync::Mutex;

use crate::steps::{self, Kind};

/// A file operation that failed, with the step and the path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}", path.display())]
pub struct DurableError {
    /// What was tried.
    pub step: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

fn at<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DurableError + use<'a> {
    move |source| DurableError { step, path: path.to_owned(), source }
}

/// Replaces `path` by `content` with this mode: temporary file beside it, fsync, rename, fsync of the directory.
///
/// A crash leaves the old content or the new one. A leftover temporary file is overwritten by the next call.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), DurableError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = directory.join(name);
    // A leftover could have another mode or owner, so it goes first.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(at("remove the leftover", &temporary)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(at("create", &temporary))?;
    file.write_all(content).map_err(at("write", &temporary))?;
    file.sync_all().map_err(at("fsync", &temporary))?;
    drop(file);
    fs::rename(&temporary, path).map_err(at("rename into place", path))?;
    sync_directory(directory)?;
    steps::took(Kind::File, || format!("wrote {}", path.display()));
    Ok(())
}

/// Like [`write`], but leaves a file alone that has this content already. True when it wrote.
pub fn write_if_changed(path: &Path, content: &[u8], mode: u32) -> Result<bool, DurableError> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    write(path, content, mode).map(|()| true)
}

/// Makes the names in a directory durable.
pub fn sync_directory(path: &Path) -> Result<(), DurableError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(at("fsync the directory", path))
}

/// Removes a file durably. True when there was one.
pub fn remove(path: &Path) -> Result<bool, DurableError> {
    match fs::remove_file(path) {
        Ok(()) => {
            sync_directory(path.parent().unwrap_or(Path::new(".")))?;
            steps::took(Kind::File, || format!("removed {}", path.display()));
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at("remove", path)(error)),
    }
}

/// Moves a file or directory durably within one file system.
pub fn rename(from: &Path, to: &Path) -> Result<(), DurableError> {
    fs::rename(from, to).map_err(at("rename", from))?;
    for side in [from, to] {
        sync_directory(side.parent().unwrap_or(Path::new(".")))?;
    }
    steps::took(Kind::File, || format!("moved {} to {}", from.display(), to.display()));
    Ok(())
}

/// Removes a whole directory and its name durably. True when there was one.
pub fn remove_tree(path: &Path) -> Result<bool, DurableError> {
    match fs::remove_dir_all(path) {
        Ok(()) => {
            sync_directory(path.parent().unwrap_or(Path::new(".")))?;
            steps::took(Kind::File, || format!("removed {}", path.display()));
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at("remove the directory", path)(error)),
    }
}

/// One at a time, in the order in which they were asked for.
static ORDER: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);

/// Runs work on the data directory's small files (settings, signals, markers, history) off the async threads, one piece
/// after the other.
///
/// A thread cannot be cancelled: an act that is pushed aside leaves its write running, and what the next act writes, or
/// finds to be written already, must not be undone by that (I2, I7, I13). So whoever comes later waits until it has ended;
/// what was still waiting when its act was dropped never begins. Must not be used for work that takes long.
pub async fn in_order<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    let turn = Arc::clone(&ORDER).lock_owned().await;
    tokio::task::spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    })
    .await
    .map_err(io::Error::other)
}

/// The same, with one kind of error.
pub(crate) async fn ordered<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, DurableError> + Send + 'static,
) -> Result<T, DurableError> {
    match in_order(work).await {
        Ok(result) => result,
        Err(error) => Err(at("finish the work on", path)(error)),
    }
}

/// Runs blocking file work off the async threads: an fsync can take as long as the disk likes.
pub(crate) async fn off_thread<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, DurableError> + Send + 'static,
) -> Result<T, DurableError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(at("finish the work on", path)(io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_write_whose_act_was_dropped_never_lands_after_a_later_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let (begun, begins) = std::sync::mpsc::channel();
        let (go, going) = std::sync::mpsc::channel::<()>();
        let slow = path.clone();
        let first = tokio::spawn(ordered(Path::new("f"), {
            move || {
                begun.send(()).unwrap();
                going.recv().unwrap();
                write(&slow, b"old", 0o600)
            }
        }));
        tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap();
        // It is in the middle of its write; a second one waits and is dropped before its turn.
        first.abort();
        let waiting = path.clone();
        let second =
            tokio::spawn(
                async move { ordered(Path::new("f"), move || write(&waiting, b"never", 0o600)).await },
            );
        tokio::task::yield_now().await;
        second.abort();
        let last = path.clone();
        let third =
            tokio::spawn(async move { ordered(Path::new("f"), move || write(&last, b"new", 0o600)).await });
        tokio::task::yield_now().await;
        go.send(()).unwrap();
        third.await.unwrap().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_write_replaces_whole_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        write(&path, b"one", 0o600).unwrap();
        fs::write(directory.path().join("f.tmp"), b"half").unwrap();
        write(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!write_if_changed(&path, b"two", 0o600).unwrap());
        assert!(!directory.path().join("f.tmp").exists());
        assert!(remove(&path).unwrap() && !remove(&path).unwrap());
    }
}
