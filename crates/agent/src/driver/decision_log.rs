//! The decision log: everything `decide` was told and answered, one JSON object a line, for `cargo xtask sim --replay`.
//!
//! Off unless `MATRIARCH_DECISION_LOG` names a file: five decisions a second with their views are tens of megabytes an
//! hour. It must never slow a decision or fill a volume: lines go to a thread of their own, and the log ends, saying so,
//! when that falls behind or the file has grown to its bound. What stands in the file until then replays from its
//! beginning. It holds no secret, since a view has none. Proved by `a_log_replays_to_the_same_decisions` and by the
//! end-to-end scenario `replay`.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use ha::log::Line;
use ha::{Decision, FenceToken, Instant, View};

/// Lines that may wait to be written.
const WAITING: usize = 1024;
/// Bytes after which a log ends.
const BOUND: usize = 256 << 20;

/// Where decisions are written, if anywhere.
#[derive(Debug, Default)]
pub(crate) struct DecisionLog {
    lines: Option<SyncSender<String>>,
}

impl DecisionLog {
    /// Begins a new log in this file; writes nothing when there is none, or when it cannot be made.
    pub(crate) fn begin(file: Option<&Path>) -> Self {
        let Some(file) = file else { return Self::default() };
        let opened = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(file);
        let started = opened.and_then(|opened| {
            let (lines, waiting) = sync_channel(WAITING);
            let writer = move || write(BufWriter::new(opened), &waiting);
            std::thread::Builder::new().name("decision-log".to_owned()).spawn(writer)?;
            Ok(lines)
        });
        match started {
            Ok(lines) => {
                tracing::info!(file = %file.display(), "decisions are logged");
                let mut log = Self { lines: Some(lines) };
                log.line(&Line::Started);
                log
            }
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "decisions are not logged");
                Self::default()
            }
        }
    }

    /// A token was put into the memory.
    pub(crate) fn won(&mut self, fence: &FenceToken) {
        self.line(&Line::Won { fence });
    }

    /// A decision was made.
    pub(crate) fn decided(&mut self, now: Instant, view: &View, decision: &Decision) {
        self.line(&Line::Decided { now, view, decision });
    }

    fn line(&mut self, line: &Line<'_>) {
        let Some(lines) = &self.lines else { return };
        let sent = match serde_json::to_string(line) {
            Ok(text) => lines.try_send(text).map_err(|error| match error {
                TrySendError::Full(_) => "the writer is behind".to_owned(),
                TrySendError::Disconnected(_) => "the writer has ended".to_owned(),
            }),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = sent {
            // A log with a gap would not replay.
            tracing::warn!(why, "the decision log ends here");
            self.lines = None;
        }
    }
}

/// Ends when the log does, with an error of the disk, or at the bound.
fn write(mut file: impl Write, waiting: &Receiver<String>) {
    let mut written = 0;
    while let Ok(line) = waiting.recv() {
        written += line.len() + 1;
        let outcome = writeln!(file, "{line}").and_then(|()| file.flush());
        if outcome.is_err() || written > BOUND {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use ha::log::{ReadLine, Replay};
    use ha::{Memory, decide};
    use std::time::Duration;

    use super::super::fixtures;
    use super::*;

    #[test]
    fn a_log_replays_to_the_same_decisions() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("decisions.jsonl");
        let mut log = DecisionLog::begin(Some(&file));
        let mut memory = Memory::default();
        for turn in 0..5_u32 {
            let now = Instant::default().after(Duration::from_secs(turn.into()));
            let view = fixtures::view(fixtures::record(1, 1), fixtures::standby(None));
            let decision = decide(&mut memory, &view, now);
            log.decided(now, &view, &decision);
        }
        drop(log);
        let wait = std::time::Instant::now();
        let text = loop {
            let text = std::fs::read_to_string(&file).unwrap();
            if text.lines().count() == 6 {
                break text;
            }
            assert!(wait.elapsed() < Duration::from_secs(10), "{text}");
            std::thread::yield_now();
        };
        let mut replay = Replay::default();
        let mut compared = 0;
        for line in text.lines() {
            let line: ReadLine<serde_json::Value> = serde_json::from_str(line).unwrap();
            if let Some((now, then)) = replay.take(line) {
                assert_eq!(serde_json::to_value(&now).unwrap(), then);
                compared += 1;
            }
        }
        assert_eq!(compared, 5);
    }

    #[test]
    fn without_a_file_nothing_is_written() {
        let mut log = DecisionLog::begin(None);
        let view = fixtures::view(fixtures::record(1, 1), fixtures::standby(None));
        log.decided(Instant::default(), &view, &Decision::default());
        assert!(log.lines.is_none());
    }
}
