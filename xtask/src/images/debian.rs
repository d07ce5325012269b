//! PostgreSQL images from Debian suites, as stock as the well-known ones: the server with its client, a
//! `postgres` user with number 999, the server's programs in `PATH`, and no part of ours inside.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::{self, Config};
use crate::cache::{Cache, Key};
use crate::command;

/// A major version and the suite that has it.
pub(crate) struct Postgres {
    major: u8,
    suite: &'static str,
}

/// The major versions that the product is tested with.
pub(crate) const MAJORS: [Postgres; 3] = [
    Postgres { major: 15, suite: "bookworm" },
    Postgres { major: 17, suite: "trixie" },
    Postgres { major: 18, suite: "sid" },
];

/// The image of a major version, for those that build upon it.
pub(crate) fn of_major(major: u8) -> Result<&'static Postgres> {
    let found = MAJORS.iter().find(|postgres| postgres.major == major);
    found.with_context(|| format!("there is no image of PostgreSQL {major}"))
}

/// Documentation and translations that nobody reads inside a container.
const LEFT_OUT: [&str; 6] = [
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/share/bug/*",
];

/// The user that the well-known images have. It is there before the packages would make one of another number.
const USER: [(&str, &str); 3] = [
    ("passwd", "postgres:x:999:999::/var/lib/postgresql:/bin/bash"),
    ("group", "postgres:x:999:"),
    ("shadow", "postgres:!:19000::::::"),
];

impl Postgres {
    /// The major version.
    pub(crate) fn major(&self) -> u8 {
        self.major
    }

    /// Name of the image.
    pub(crate) fn reference(&self) -> String {
        format!("rig.test/pg:{}", self.major)
    }

    /// The archive, made when it is missing: about a minute.
    pub(crate) fn ensure(&self, cache: &Cache) -> Result<PathBuf> {
        let arguments = self.arguments(&[]);
        let config = self.config();
        let key =
            Key::new("debian 1").with(arguments.join("\n")).with(self.reference()).with(config.fingerprint());
        cache.ensure("images", &format!("pg{}", self.major), &key, ".tar", |path| {
            let scratch =
                tempfile::tempdir_in(cache.root()).context("making a directory for a root file system")?;
            let layer = scratch.path().join("root.tar");
            self.bootstrap(&arguments, &layer)?;
            archive::write(&self.reference(), &config, &layer, path)
        })
    }

    /// Makes the root file system as a tar file.
    pub(super) fn bootstrap(&self, arguments: &[String], layer: &Path) -> Result<()> {
        let mut build = Command::new("mmdebstrap");
        build.args(arguments).arg(self.suite).arg(layer);
        command::run(
            &format!("build the root file system of PostgreSQL {} ({})", self.major, self.suite),
            build,
        )
    }

    /// How the root file system is made, with more packages of the same suite in it.
    pub(super) fn arguments(&self, more: &[&str]) -> Vec<String> {
        let major = self.major;
        let more = more.iter().fold(String::new(), |list, package| list + "," + package);
        let mut arguments = vec![
            "--variant=minbase".to_owned(),
            format!("--include=postgresql-{major},postgresql-client-{major},ca-certificates{more}"),
            // A mirror that lags behind still has signed packages; sid's list is valid for a week only.
            "--aptopt=Acquire::Check-Valid-Until \"false\"".to_owned(),
            // The cluster that Debian would create has no place in an image.
            "--essential-hook=mkdir -p \"$1\"/etc/postgresql-common".to_owned(),
            "--essential-hook=echo 'create_main_cluster = false' > \"$1\"/etc/postgresql-common/createcluster.conf"
                .to_owned(),
            format!("--customize-hook=test -x \"$1\"/usr/lib/postgresql/{major}/bin/postgres"),
            "--customize-hook=install -d -o 999 -g 999 -m 1777 \"$1\"/var/lib/postgresql/data".to_owned(),
            "--customize-hook=install -d -o 999 -g 999 -m 3777 \"$1\"/var/run/postgresql".to_owned(),
            "--customize-hook=rm -rf \"$1\"/var/cache/apt/* \"$1\"/var/lib/apt/lists/* \"$1\"/var/log/apt".to_owned(),
        ];
        for (file, line) in USER {
            arguments.push(format!("--essential-hook=echo '{line}' >> \"$1\"/etc/{file}"));
        }
        for left_out in LEFT_OUT {
            arguments.push(format!("--dpkgopt=path-exclude={left_out}"));
        }
        arguments
    }

    /// What a container of it finds around it.
    pub(super) fn config(&self) -> Config {
        let major = self.major;
        let path = format!(
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/{major}/bin"
        );
        Config {
            environment: vec![
                path,
                "LANG=C.UTF-8".to_owned(),
                format!("PG_MAJOR={major}"),
                "PGDATA=/var/lib/postgresql/data".to_owned(),
            ],
            ..Config::default()
        }
    }
}
