//! What the kernel says of a process: memory and computing time.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Linux tells computing times to programs in hundredths of a second, whatever its own clock is.
const TICK: Duration = Duration::from_millis(10);

/// Memory of a process in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) resident: u64,
    /// The most that was ever resident.
    pub(crate) peak: u64,
}

/// Of a process that runs.
///
/// # Errors
/// When there is no such process.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    Ok(Memory { resident: status(pid, "VmRSS")?, peak: status(pid, "VmHWM")? })
}

/// Resident memory in KiB behind which there is no file.
///
/// # Errors
/// When there is no such process.
pub(crate) fn anonymous(pid: u32) -> Result<u64> {
    status(pid, "RssAnon")
}

fn status(pid: u32, field: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("read the memory of process {pid}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("process {pid} has no {field}"))
}

/// Processes that this one started.
///
/// # Errors
/// When there is no such process.
pub(crate) fn children(pid: u32) -> Result<Vec<u32>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .with_context(|| format!("read the children of process {pid}"))?;
    Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).collect())
}

/// What a process is called by whoever started it.
pub(crate) fn name(pid: u32) -> Option<String> {
    let text = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let name = text.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// Computing time of a process and of its threads so far, of the program and of the kernel for it.
///
/// # Errors
/// When there is no such process.
pub(crate) fn computed(pid: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("read the computing time of process {pid}"))?;
    ticks(&text).and_then(|ticks| TICK.checked_mul(ticks)).context("a line of times that has none")
}

/// The name, in parentheses, may hold anything.
fn ticks(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_whitespace().skip(11).map(|field| field.parse::<u32>().ok());
    times.next()??.checked_add(times.next()??)
}

/// Cores that were busy for it, of one: 0.01 is one percent of a core.
pub(crate) fn cores(computed: Duration, during: Duration) -> f64 {
    computed.as_secs_f64() / during.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_there() {
        let own = std::process::id();
        let memory = memory(own).unwrap();
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
        assert!(computed(own).unwrap() < Duration::from_secs(3600));
        assert!(super::memory(u32::MAX).is_err() && computed(u32::MAX).is_err());
    }

    #[test]
    fn a_name_with_parentheses_is_no_field() {
        assert_eq!(ticks("7 (a) b) S 1 1 1 0 -1 4 5 6 7 8 12 30 0 0 20"), Some(42));
    }

    #[test]
    fn a_tenth_of_a_core() {
        assert!((cores(Duration::from_secs(6), Duration::from_secs(60)) - 0.1).abs() < 1e-9);
    }
}
