//! JSON lines: each repetition is appended and flushed as soon as it is known, so that a long series can be done in
//! parts.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file of them.
#[derive(Debug)]
pub(crate) struct Lines(File);

impl Lines {
    /// By its name; made when it is not there.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn open(file: &Path) -> Result<Self> {
        let opened = OpenOptions::new().create(true).read(true).append(true).open(file);
        Ok(Self(opened.with_context(|| format!("open {}", file.display()))?))
    }

    /// What this program's standard input is: a program that runs in a root file system of its own is handed its file.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn handed_over() -> Result<Self> {
        let own = std::io::stdin().as_fd().try_clone_to_owned().context("there is no standard input")?;
        Ok(Self(File::from(own)))
    }

    /// Everything in the file. A line that is none of these, such as one that was cut off, is left out with a warning.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read<L: DeserializeOwned>(&mut self) -> Result<Vec<L>> {
        let mut found = Vec::new();
        for (number, line) in self.text()?.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(line) => found.push(line),
                Err(error) => eprintln!("warning: line {} is left out: {error}", number + 1),
            }
        }
        Ok(found)
    }

    /// Appends one line, for good. One that was cut off before is ended first.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn append<L: Serialize>(&mut self, line: &L) -> Result<()> {
        let text = self.text()?;
        let start = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let line = serde_json::to_string(line)?;
        self.0.write_all(format!("{start}{line}\n").as_bytes()).context("append a line")?;
        self.0.sync_data().context("flush a line")
    }

    fn text(&mut self) -> Result<String> {
        self.0.seek(SeekFrom::Start(0)).context("go to the first line")?;
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).context("read the lines")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driver::scratch::Scratch;

    #[test]
    fn a_line_that_was_cut_off_spoils_no_other() {
        let directory = Scratch::new_in(&std::env::temp_dir(), "lines-").unwrap();
        let file = directory.path().join("lines");
        let mut lines = Lines::open(&file).unwrap();
        assert_eq!(lines.read::<u32>().unwrap(), Vec::<u32>::new());
        lines.append(&1_u32).unwrap();
        std::fs::write(&file, "1\n{\"cut").unwrap();
        lines.append(&2_u32).unwrap();
        lines.append(&3_u32).unwrap();
        assert_eq!(Lines::open(&file).unwrap().read::<u32>().unwrap(), [1, 2, 3]);
    }
}
