//! Running PostgreSQL's programs: no shell, a cleared environment, a bound, and the end of what they said on failure.
//!
//! Decides environment and reporting. Must never inherit a `PG…` variable, which would redirect a program, nor wait
//! without a bound. Proved by `tests`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use crate::steps::{self, Kind};

/// Lines of standard error that are kept for the error message.
const KEPT_LINES: usize = 20;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be started or read.
    #[error("cannot run {program}")]
    Run {
        /// Which.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It was killed at its bound.
    #[error("{program} was not done within {bound:?}: {said}")]
    Timeout {
        /// Which.
        program: String,
        /// How long it was given.
        bound: Duration,
        /// The end of its standard error.
        said: String,
    },
    /// It failed.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// Which.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error.
        said: String,
    },
}

/// What a program left.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// The last lines of its standard error.
    pub said: String,
}

/// One program to run.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
}

impl Program {
    /// This program without arguments.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), args: Vec::new() }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Two more arguments: an option and its value.
    #[must_use]
    pub fn option(self, name: &str, value: impl Into<OsString>) -> Self {
        self.arg(name).arg(value)
    }

    /// File name, for messages.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The tokio command with the cleared environment; killed when dropped.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args).env_clear().envs(environment(&self.path)).kill_on_drop(true);
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end; an exit code other than 0 is an error.
    pub async fn run(&self, bound: Duration, line: impl FnMut(&str)) -> Result<Finished, ProgramError> {
        let finished = self.run_any(bound, line).await?;
        if finished.status.success() {
            return Ok(finished);
        }
        Err(ProgramError::Failed { program: self.name(), status: finished.status, said: finished.said })
    }

    /// Runs it to its end, whatever its exit code. `line` gets each line of standard error.
    pub async fn run_any(
        &self,
        bound: Duration,
        mut line: impl FnMut(&str),
    ) -> Result<Finished, ProgramError> {
        let failed = |source| ProgramError::Run { program: self.name(), source };
        let mut child =
            self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
        steps::took(Kind::Program, || format!("{} has begun", self.name()));
        let mut out = child.stdout.take();
        let err = child.stderr.take();
        let mut tail = Tail::default();
        let mut stdout = Vec::new();
        let work = async {
            let read_out = async {
                match out.as_mut() {
                    Some(out) => out.read_to_end(&mut stdout).await.map(|_| ()),
                    None => Ok(()),
                }
            };
            let read_err = each_line(err, |text| {
                tail.push(text);
                steps::took(Kind::Program, || format!("{} says {text}", self.name()));
                line(text);
            });
            let (out, err) = tokio::join!(read_out, read_err);
            out.and(err)?;
            child.wait().await
        };
        match tokio::time::timeout(bound, work).await {
            Ok(Ok(status)) => {
                steps::took(Kind::Program, || format!("{} has ended", self.name()));
                Ok(Finished { status, stdout, said: tail.text() })
            }
            Ok(Err(source)) => Err(failed(source)),
            Err(_) => Err(ProgramError::Timeout { program: self.name(), bound, said: tail.text() }),
        }
    }
}

/// The whole environment of PostgreSQL and its programs: messages in English, times in UTC, nothing of libpq's.
pub(crate) fn environment(program: &Path) -> Vec<(OsString, OsString)> {
    let directory = program.parent().unwrap_or(Path::new("/usr/bin"));
    let mut environment: Vec<(OsString, OsString)> = vec![
        ("LC_ALL".into(), "C".into()),
        ("TZ".into(), "UTC".into()),
        ("PG_COLOR".into(), "never".into()),
        // libpq looks for keys and passwords in the home directory; there is none to find.
        ("HOME".into(), "/nonexistent".into()),
        ("PATH".into(), directory.into()),
    ];
    // Some images keep their libraries apart.
    for name in ["LD_LIBRARY_PATH", "LOCPATH"] {
        if let Some(value) = std::env::var_os(name) {
            environment.push((name.into(), value));
        }
    }
    environment
}

/// Calls `line` for each line that ends in a line feed or a carriage return (progress meters use the latter).
async fn each_line(
    source: Option<impl AsyncRead + Unpin>,
    mut line: impl FnMut(&str),
) -> Result<(), io::Error> {
    let Some(mut source) = source else { return Ok(()) };
    let mut pending = Vec::new();
    let mut chunk = vec![0; 4096];
    loop {
        let read = source.read(&mut chunk).await?;
        pending.extend_from_slice(chunk.get(..read).unwrap_or_default());
        while let Some(end) = pending.iter().position(|b| *b == b'\n' || *b == b'\r') {
            let rest = pending.split_off(end + 1);
            emit(&pending, &mut line);
            pending = rest;
        }
        if read == 0 || pending.len() > 1 << 20 {
            emit(&pending, &mut line);
            pending.clear();
        }
        if read == 0 {
            return Ok(());
        }
    }
}

fn emit(bytes: &[u8], line: &mut impl FnMut(&str)) {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end();
    if !text.is_empty() {
        line(text);
    }
}

/// The last lines of an output.
#[derive(Debug, Default)]
pub(crate) struct Tail(VecDeque<String>);

impl Tail {
    pub(crate) fn push(&mut self, line: &str) {
        if self.0.len() == KEPT_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    pub(crate) fn text(&self) -> String {
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failure_carries_what_was_said_and_no_pg_variable_is_inherited() {
        let script = "echo out; printf '1%%\\r2%%\\r' >&2; env | grep ^PG >&2; exit 3";
        let mut lines = Vec::new();
        let program = Program::new("/bin/sh").option("-c", script);
        let error = program.run(Duration::from_secs(5), |l| lines.push(l.to_owned())).await.unwrap_err();
        assert!(matches!(&error, ProgramError::Failed { said, .. } if said.starts_with("1%; 2%")), "{error}");
        assert_eq!(lines.get(..2).unwrap(), ["1%", "2%"]);
    }

    #[tokio::test]
    async fn a_program_is_killed_at_its_bound() {
        let program = Program::new("/bin/sleep").arg("60");
        let error = program.run(Duration::from_millis(50), |_| {}).await.unwrap_err();
        assert!(matches!(error, ProgramError::Timeout { .. }));
    }
}
