//! Runs a program that tests, shows what matters of its output, and counts.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// How many passed and failed, and what is told of those that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Passed.
    pub(crate) passed: u64,
    /// Failed.
    pub(crate) failed: u64,
    /// Left out.
    pub(crate) skipped: u64,
    /// What each failure said first: repeated at the end of a run, whose middle nobody reads.
    pub(crate) failures: Vec<String>,
}

impl Counts {
    /// One check that passed.
    pub(crate) fn passed() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    /// One check that failed, and what is to be told of it.
    pub(crate) fn failed(told: impl Into<String>) -> Self {
        Self { failed: 1, failures: vec![told.into()], ..Self::default() }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Runs it; a failure without a failed test counts as one, for instance a crate that does not compile.
pub(crate) fn tests(mut command: Command) -> Result<Counts> {
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("copying a pipe")?).stderr(writer);
    let mut child =
        command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
    drop(command); // Or our own copies of the pipe's writing end would keep it open for ever.
    let mut counts = Counts::default();
    let mut to_tell = 0;
    for line in BufReader::new(reader).lines() {
        let line = line.context("reading the output of tests")?;
        let more = lines_of_failure(&line);
        match (more, counts.failures.last_mut()) {
            (Some(lines), _) => {
                to_tell = lines;
                counts.failures.push(line.clone());
            }
            (None, Some(failure)) if to_tell > 0 => {
                to_tell -= 1;
                failure.push_str("\n  ");
                failure.push_str(&line);
            }
            _ => {}
        }
        match summary(&line) {
            Some(more) => counts += more,
            None if is_noise(&line) => {}
            None => println!("{line}"),
        }
    }
    let status = child.wait().context("waiting for tests")?;
    if !status.success() && counts.failed == 0 {
        println!("{status}, though no test failed");
        counts += Counts::failed(format!("{status}, though no test failed"));
    }
    Ok(counts)
}

/// libtest's `test result: ok. 3 passed; 1 failed; …`, and our own `3 passed, 1 failed, 2 skipped`.
fn summary(line: &str) -> Option<Counts> {
    let text = match line.strip_prefix("test result: ") {
        Some(rest) => rest.split_once(". ").map(|(_, numbers)| numbers)?,
        None => line,
    };
    let mut counts = Counts::default();
    let mut words = text.split([';', ',']).map(|part| part.split_whitespace().collect::<Vec<_>>());
    let number = |words: Option<Vec<&str>>, name: &str| match words.as_deref() {
        Some([number, word]) if *word == name => number.parse::<u64>().ok(),
        _ => None,
    };
    counts.passed = number(words.next(), "passed")?;
    counts.failed = number(words.next(), "failed")?;
    if let Some([number, "ignored" | "skipped"]) = words.next().as_deref() {
        counts.skipped = number.parse().ok()?;
    }
    Some(counts)
}

/// Whether a failure is told of from this line on, and in how many more: by libtest, a panic, a scenario, a story.
fn lines_of_failure(line: &str) -> Option<usize> {
    if line.starts_with("test ") && line.ends_with(" FAILED") {
        Some(0)
    } else if line.contains(" panicked at ") {
        Some(4)
    } else if line.starts_with("FAIL ") || line.contains(": FAILED ") {
        Some(12)
    } else {
        None
    }
}

/// Lines of which a run has thousands and a reader needs none.
fn is_noise(line: &str) -> bool {
    let line = line.trim();
    line.is_empty()
        || (line.starts_with("test ") && line.ends_with(" ... ok"))
        || (line.starts_with("running ") && line.contains(" test"))
        || ["Running ", "Doc-tests ", "Compiling ", "Checking ", "Fresh ", "Downloaded "]
            .into_iter()
            .any(|word| line.starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_closing_lines_count() {
        let libtest = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(summary(libtest), Some(Counts { passed: 12, failed: 2, skipped: 1, ..Counts::default() }));
        assert_eq!(summary("18 passed, 0 failed"), Some(Counts { passed: 18, ..Counts::default() }));
        assert_eq!(
            summary("16 passed, 0 failed, 2 skipped"),
            Some(Counts { passed: 16, skipped: 2, ..Counts::default() })
        );
        assert_eq!(summary("the test passed"), None);
    }

    #[test]
    fn failures_are_shown_and_successes_are_not() {
        assert!(is_noise("test a::b ... ok"));
        assert!(!is_noise("test a::b ... FAILED"));
        assert!(!is_noise("error[E0308]: mismatched types"));
    }

    #[test]
    fn a_program_that_dies_without_a_word_failed() {
        let counts = super::tests(Command::new("false")).unwrap();
        assert_eq!((counts.passed, counts.failed, counts.failures.len()), (0, 1, 1));
    }

    #[test]
    fn what_failed_is_told_again_with_its_first_lines() {
        let mut program = Command::new("printf");
        program.arg("fine\nclone: FAILED in world 2: it hangs\nbecause\n3 passed, 1 failed\n");
        let counts = super::tests(program).unwrap();
        assert_eq!((counts.passed, counts.failed), (3, 1));
        assert_eq!(counts.failures, ["clone: FAILED in world 2: it hangs\n  because\n  3 passed, 1 failed"]);
    }
}
