//! Which PostgreSQL programs there are, and of which major version.
//!
//! Decides where stock images keep them. Must never mix majors: a data directory's own `PG_VERSION` chooses.
//! Proved by `tests`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// PostgreSQL's major version; 15 to 18 are supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Major(pub u16);

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The majors that this crate was written for.
pub const SUPPORTED: std::ops::RangeInclusive<Major> = Major(15)..=Major(18);

/// Every program that this crate runs.
pub const PROGRAMS: &[&str] =
    &["initdb", "pg_basebackup", "pg_controldata", "pg_rewind", "pg_waldump", "postgres"];

/// Why no usable programs were found.
#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    /// No directory holds all of [`PROGRAMS`] of a wanted major.
    #[error("no PostgreSQL{} server programs in {}", wanted.map(|m| format!(" {m}")).unwrap_or_default(), searched(places))]
    NotFound {
        /// The major that was asked for.
        wanted: Option<Major>,
        /// Where it was looked for.
        places: Vec<PathBuf>,
    },
    /// `PG_VERSION` cannot be read or understood.
    #[error("cannot tell the version of {}", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn searched(places: &[PathBuf]) -> String {
    places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// A directory of PostgreSQL programs of one major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
    major: Major,
}

impl Binaries {
    /// Programs for the data directory when it exists, else for `wanted`, else of the newest supported major.
    ///
    /// Looks in `PATH`, then where Debian, the well-known container images and the RPMs keep them. Runs
    /// `postgres --version` to learn each major; bounded by that program's own speed.
    pub fn discover(data: Option<&Path>, wanted: Option<Major>) -> Result<Self, BinariesError> {
        let wanted = match data.map(version_of).transpose()?.flatten() {
            Some(of_data) => Some(of_data),
            None => wanted,
        };
        let places = places();
        let mut found: Vec<Self> = places.iter().filter_map(|place| Self::at(place)).collect();
        found.retain(|b| SUPPORTED.contains(&b.major) && wanted.is_none_or(|w| w == b.major));
        // Stable sort: among equals the place that came first, PATH before everything.
        found.sort_by_key(|b| std::cmp::Reverse(b.major));
        found.into_iter().next().ok_or(BinariesError::NotFound { wanted, places })
    }

    /// Every supported major that is installed here, one directory each.
    pub fn installed() -> Vec<Self> {
        let mut found: Vec<Self> = places().iter().filter_map(|place| Self::at(place)).collect();
        found.retain(|b| SUPPORTED.contains(&b.major));
        found.sort_by_key(|b| b.major);
        found.dedup_by_key(|b| b.major);
        found
    }

    /// The programs in this directory, when the server is among them.
    pub fn at(directory: &Path) -> Option<Self> {
        // Some directories hold links to a few of the programs: the others are where the server really is. Debian's
        // /usr/bin holds wrappers of client programs only and does not count.
        let postgres = directory.join("postgres").canonicalize().ok()?;
        let directory = postgres.parent()?.to_owned();
        if !PROGRAMS.iter().all(|program| directory.join(program).is_file()) {
            return None;
        }
        let output = std::process::Command::new(postgres).arg("--version").env_clear().output().ok()?;
        let major = parse_version(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self { directory, major })
    }

    /// Their major version.
    pub fn major(&self) -> Major {
        self.major
    }

    /// The path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The major in a data directory's `PG_VERSION`; none when there is no such file.
pub fn version_of(data: &Path) -> Result<Option<Major>, BinariesError> {
    let path = data.join("PG_VERSION");
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(major) => Ok(Some(Major(major))),
            Err(error) => Err(BinariesError::Version {
                path,
                source: io::Error::new(io::ErrorKind::InvalidData, format!("{text:?}: {error}")),
            }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BinariesError::Version { path, source }),
    }
}

fn parse_version(text: &str) -> Option<Major> {
    let version = text.split_whitespace().nth(2)?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().map(Major)
}

fn places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> =
        std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default();
    for major in (SUPPORTED.start().0..=SUPPORTED.end().0).rev() {
        places.push(format!("/usr/lib/postgresql/{major}/bin").into());
        places.push(format!("/usr/pgsql-{major}/bin").into());
    }
    places.push("/usr/local/bin".into());
    places.push("/usr/local/pgsql/bin".into());
    let mut seen = std::collections::BTreeSet::new();
    places.retain(|p| p.is_absolute() && seen.insert(p.clone()));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_postgres_prints_them() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(Major(15)));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1\n"), Some(Major(18)));
        assert_eq!(parse_version("nonsense"), None);
    }

    #[test]
    fn a_data_directory_names_its_major() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(version_of(directory.path()).unwrap(), None);
        std::fs::write(directory.path().join("PG_VERSION"), "17\n").unwrap();
        assert_eq!(version_of(directory.path()).unwrap(), Some(Major(17)));
    }
}
