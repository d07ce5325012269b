//! Copying, listing and comparing what is kept.
//!
//! Decides the order: copies into a hidden directory, each file fsynced, the manifest last, then one rename. Must never
//! show a directory under its final name that is not whole.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ha::{Lsn, Position, Timeline};

use super::{Contents, Kept, LogFile, MANIFEST, Manifest, is_written, name_of};
use crate::durable::{self, DurableError};
use crate::layout::{Layout, private_directory};
use crate::promise::DurableFile;
use crate::wal::SegmentSize;

/// Copies in the making.
const HIDDEN: &str = ".partial";

/// A diverged segment.
struct Segment {
    timeline: Timeline,
    start: Lsn,
    file: LogFile,
}

pub(super) fn keep(
    layout: &Layout,
    size: SegmentSize,
    fork: Option<Position>,
    limit: u64,
) -> Result<Option<Kept>, DurableError> {
    let wal = layout.wal();
    let mut segments = diverged(&wal, size, fork)?;
    let Some(first) = segments.first().map(|s| (s.timeline, s.start)) else { return Ok(None) };
    if fork.is_none() {
        // Where it left is unknown; the end is what nobody else has.
        segments.reverse();
    }
    let histories = histories(&wal, fork)?;
    let base = layout.diverged();
    private_directory(&base)?;
    durable::remove_tree(&base.join(HIDDEN))?;
    let before = list(layout)?;
    let name = name_of(fork, first);
    for kept in before.iter().filter(|kept| kept.name.starts_with(&name)) {
        if let Contents::Log(manifest) = &kept.contents
            && covers(&kept.path, manifest, &wal, &segments)?
        {
            return Ok(Some(kept.clone()));
        }
    }

    let used: u64 = before.iter().filter(|k| matches!(k.contents, Contents::Log(_))).map(|k| k.bytes).sum();
    let mut room = limit.saturating_sub(used).min(free(&base)? / 2);
    let mut manifest =
        Manifest { fork, files: Vec::new(), left_out: Vec::new(), limit, kept_at: seconds_now() };
    // The histories are a few hundred bytes and tell what the segments are.
    for file in histories.into_iter().chain(segments.into_iter().map(|s| s.file)) {
        if manifest.left_out.is_empty() && file.bytes <= room {
            room -= file.bytes;
            manifest.files.push(file);
        } else {
            manifest.left_out.push(file);
        }
    }
    let hidden = base.join(HIDDEN);
    private_directory(&hidden)?;
    for file in &manifest.files {
        copy(&wal.join(&file.name), &hidden.join(&file.name))?;
    }
    let stored = DurableFile::new(hidden.join(MANIFEST)).store(&manifest);
    stored.map_err(|error| failed("write the list of", &hidden)(io::Error::other(error)))?;
    durable::sync_directory(&hidden)?;
    let (name, path) = free_name(&base, &name);
    durable::rename(&hidden, &path)?;
    Ok(Some(Kept { name, bytes: bytes_below(&path)?, path, contents: Contents::Log(manifest) }))
}

pub(super) fn list(layout: &Layout) -> Result<Vec<Kept>, DurableError> {
    let mut found = Vec::new();
    for (name, path) in directories(&layout.diverged())? {
        if name == HIDDEN {
            continue;
        }
        let contents = match DurableFile::<Manifest>::new(path.join(MANIFEST)).load() {
            Ok(Some(manifest)) => Contents::Log(manifest),
            Ok(None) => Contents::Unknown { why: "it has no manifest".to_owned() },
            Err(error) => Contents::Unknown { why: error.to_string() },
        };
        found.push(Kept { name, bytes: bytes_below(&path)?, path, contents });
    }
    let replaced = layout.set_aside();
    let prefix = replaced.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for (name, path) in directories(layout.volume())? {
        let rest = name.strip_prefix(&prefix);
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
            found.push(Kept { name, bytes: bytes_below(&path)?, path, contents: Contents::Replaced });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The segments that the leader's history lacks, oldest first.
fn diverged(wal: &Path, size: SegmentSize, fork: Option<Position>) -> Result<Vec<Segment>, DurableError> {
    let mut found = Vec::new();
    for (name, path) in files(wal)? {
        let plain = name.strip_suffix(".partial").unwrap_or(&name);
        let Some((timeline, number)) = size.parse_file_name(plain) else { continue };
        let Some(start) = number.checked_mul(size.bytes()).map(Lsn) else { continue };
        let beyond = fork.is_none_or(|fork| {
            timeline > fork.timeline || timeline == fork.timeline && number >= size.segment(fork.lsn)
        });
        let look = failed("read", &path);
        if beyond && is_written(&path, start).map_err(look)? {
            let bytes = fs::metadata(&path).map_err(failed("look at", &path))?.len();
            found.push(Segment { timeline, start, file: LogFile { name, bytes } });
        }
    }
    found.sort_by(|a, b| (a.timeline, a.start, &a.file).cmp(&(b.timeline, b.start, &b.file)));
    Ok(found)
}

/// The histories of timelines after the fork's.
fn histories(wal: &Path, fork: Option<Position>) -> Result<Vec<LogFile>, DurableError> {
    let mut found = Vec::new();
    for (name, path) in files(wal)? {
        let timeline = name.strip_suffix(".history").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        if timeline.is_some_and(|t| fork.is_none_or(|fork| Timeline(t) > fork.timeline)) {
            let bytes = fs::metadata(&path).map_err(failed("look at", &path))?.len();
            found.push(LogFile { name, bytes });
        }
    }
    found.sort();
    Ok(found)
}

/// True when an earlier copy holds all that is diverged now.
fn covers(kept: &Path, manifest: &Manifest, wal: &Path, segments: &[Segment]) -> Result<bool, DurableError> {
    let names: BTreeSet<&str> = manifest.files.iter().map(|f| f.name.as_str()).collect();
    let left_out: BTreeSet<&str> = manifest.left_out.iter().map(|f| f.name.as_str()).collect();
    for Segment { file, .. } in segments {
        if left_out.contains(file.name.as_str()) {
            continue;
        }
        if !names.contains(file.name.as_str()) || !same(&kept.join(&file.name), &wal.join(&file.name))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same(one: &Path, other: &Path) -> Result<bool, DurableError> {
    let open = |path: &Path| match File::open(path) {
        Ok(file) => Ok(Some(io::BufReader::with_capacity(1 << 16, file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    };
    let (Some(mut left), Some(mut right)) = (open(one)?, open(other)?) else { return Ok(false) };
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = fill(&mut left, &mut a).map_err(failed("read", one))?;
        let other_read = fill(&mut right, &mut b).map_err(failed("read", other))?;
        if read != other_read || a.get(..read) != b.get(..read) {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// The kernel copies, and shares the blocks where the file system can.
fn copy(from: &Path, to: &Path) -> Result<(), DurableError> {
    fs::copy(from, to).map_err(failed("copy", from))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(failed("fsync", to))
}

fn free_name(base: &Path, name: &str) -> (String, PathBuf) {
    let mut candidate = name.to_owned();
    let mut number = 1_u32;
    while base.join(&candidate).exists() {
        number = number.saturating_add(1);
        candidate = format!("{name}.{number}");
    }
    let path = base.join(&candidate);
    (candidate, path)
}

fn free(path: &Path) -> Result<u64, DurableError> {
    let seen =
        rustix::fs::statvfs(path).map_err(|error| failed("ask for free space at", path)(error.into()))?;
    Ok(seen.f_bavail.saturating_mul(seen.f_frsize))
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Names and paths of a directory's entries; none when there is no such directory.
fn entries(path: &Path) -> Result<Vec<(String, PathBuf, fs::FileType)>, DurableError> {
    let mut found = Vec::new();
    let listing = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        other => other.map_err(failed("list", path))?,
    };
    for entry in listing {
        let entry = entry.map_err(failed("list", path))?;
        let kind = entry.file_type().map_err(failed("look at", path))?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path(), kind));
    }
    Ok(found)
}

fn files(path: &Path) -> Result<impl Iterator<Item = (String, PathBuf)>, DurableError> {
    Ok(entries(path)?.into_iter().filter(|(_, _, kind)| kind.is_file()).map(|(name, path, _)| (name, path)))
}

fn directories(path: &Path) -> Result<impl Iterator<Item = (String, PathBuf)>, DurableError> {
    Ok(entries(path)?.into_iter().filter(|(_, _, kind)| kind.is_dir()).map(|(name, path, _)| (name, path)))
}

fn bytes_below(path: &Path) -> Result<u64, DurableError> {
    let mut sum = 0_u64;
    for (_, path, kind) in entries(path)? {
        sum += if kind.is_dir() {
            bytes_below(&path)?
        } else {
            fs::symlink_metadata(&path).map_err(failed("look at", &path))?.len()
        };
    }
    Ok(sum)
}

fn failed<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DurableError + use<'a> {
    move |source| DurableError { step, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::new(SIZE).unwrap()
    }

    fn write_segment(layout: &Layout, timeline: u32, number: u64, content: u64) {
        let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
        bytes[0..2].copy_from_slice(&0xD110_u16.to_le_bytes());
        bytes[8..16].copy_from_slice(&(content * SIZE).to_le_bytes());
        let name = size().file_name(Timeline(timeline), Lsn(number * SIZE));
        fs::write(layout.wal().join(name), bytes).unwrap();
    }

    fn volume() -> (tempfile::TempDir, Layout) {
        let volume = tempfile::tempdir().unwrap();
        let layout = Layout::new(volume.path());
        fs::create_dir_all(layout.wal()).unwrap();
        for (timeline, number, content) in [(1, 2, 2), (1, 3, 3), (1, 4, 4), (1, 5, 2), (2, 4, 4)] {
            write_segment(&layout, timeline, number, content);
        }
        fs::write(layout.wal().join("00000002.history"), "1\t0/400100\tx\n").unwrap();
        (volume, layout)
    }

    const FORK: Option<Position> = Some(Position { timeline: Timeline(1), lsn: Lsn(3 * SIZE + 0x100) });

    #[test]
    fn the_log_from_the_fork_on_is_kept_once_and_until_it_is_let_go() {
        let (_volume, layout) = volume();
        assert!(list(&layout).unwrap().is_empty());
        let kept = keep(&layout, size(), FORK, u64::MAX).unwrap().unwrap();
        assert_eq!(kept.name, "00000001-0000000000300100");
        let Contents::Log(manifest) = &kept.contents else { panic!("{kept:?}") };
        let names: Vec<&str> = manifest.files.iter().map(|f| f.name.as_str()).collect();
        // The recycled segment 5 holds nothing of its own, segment 2 is before the fork.
        assert_eq!(
            names,
            [
                "00000002.history",
                "000000010000000000000003",
                "000000010000000000000004",
                "000000020000000000000004"
            ]
        );
        assert!(manifest.is_complete() && kept.path.join(names[3]).exists());
        assert_eq!(keep(&layout, size(), FORK, u64::MAX).unwrap().unwrap().name, kept.name);
        // The log has grown since: another copy, and the first stays.
        write_segment(&layout, 2, 5, 5);
        let second = keep(&layout, size(), FORK, u64::MAX).unwrap().unwrap();
        assert_eq!(second.name, "00000001-0000000000300100.2");
        assert_eq!(list(&layout).unwrap().len(), 2);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (_volume, layout) = volume();
        let kept = keep(&layout, size(), FORK, SIZE + 4096).unwrap().unwrap();
        let Contents::Log(manifest) = &kept.contents else { panic!("{kept:?}") };
        assert!(!manifest.is_complete());
        assert_eq!((manifest.files.len(), manifest.left_out.len()), (2, 2), "{manifest:?}");
        assert!(manifest.bytes() <= SIZE + 4096);
        // Without a known fork the newest counts most.
        let (_volume, layout) = volume();
        let kept = keep(&layout, size(), None, SIZE + 4096).unwrap().unwrap();
        let Contents::Log(manifest) = &kept.contents else { panic!("{kept:?}") };
        assert_eq!(manifest.files.last().unwrap().name, "000000020000000000000004");
    }

    #[test]
    fn a_copy_that_a_crash_cut_short_is_made_again() {
        let (_volume, layout) = volume();
        fs::create_dir_all(layout.diverged().join(HIDDEN)).unwrap();
        fs::write(layout.diverged().join(HIDDEN).join("000000010000000000000003"), b"half").unwrap();
        assert!(list(&layout).unwrap().is_empty());
        let kept = keep(&layout, size(), FORK, u64::MAX).unwrap().unwrap();
        assert!(matches!(&kept.contents, Contents::Log(manifest) if manifest.files.len() == 4));
        assert!(!layout.diverged().join(HIDDEN).exists());
        // A damaged list is not taken for nothing.
        fs::write(kept.path.join(MANIFEST), b"{").unwrap();
        let listed = list(&layout).unwrap();
        assert!(matches!(&listed[0].contents, Contents::Unknown { .. }), "{listed:?}");
    }

    #[tokio::test]
    async fn only_what_is_listed_can_be_let_go() {
        let (_volume, layout) = volume();
        let kept = keep(&layout, size(), FORK, u64::MAX).unwrap().unwrap();
        fs::create_dir(layout.set_aside()).unwrap();
        fs::create_dir(layout.volume().join("pgdata.new")).unwrap();
        for name in ["..", "../pgdata", "", "pgdata", "pgdata.new", HIDDEN] {
            assert!(!super::super::let_go(&layout, name).await.unwrap(), "{name:?}");
        }
        assert_eq!(super::super::kept(&layout).await.unwrap().len(), 2);
        assert!(super::super::let_go(&layout, &kept.name).await.unwrap());
        assert!(super::super::let_go(&layout, "pgdata.diverged").await.unwrap());
        assert!(super::super::kept(&layout).await.unwrap().is_empty());
        assert!(layout.wal().exists());
    }
}
