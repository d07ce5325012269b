//! Runs other programs: a long one with visible progress, a short one quietly, and each of them with
//! the end of its output in the error when it fails.
//!
//! Nothing here goes through a shell, and nothing waits without a bound.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How many lines of a failed program's output an error carries.
const TAIL: usize = 40;
/// How often a long step says that it is still alive when nobody watches a terminal.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// How often the line on a terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(200);
/// No single step may take longer than this, whatever it is.
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs a long step. Its output is not shown, except for the newest line as a sign of progress; when it
/// fails, the error ends with its last lines.
pub(crate) fn run(label: &str, mut command: Command) -> Result<()> {
    let started = Instant::now();
    let mut screen = Screen::new(label);
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("copying a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("starting {}", describe(&command)))?;
    drop(command); // Or our own copies of the pipe's writing end would keep it open for ever.

    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(std::result::Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });

    let mut tail = VecDeque::with_capacity(TAIL);
    let status = loop {
        match lines.recv_timeout(REDRAW) {
            Ok(line) if line.is_empty() => {}
            Ok(line) => {
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line);
                continue;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            // The output is closed, so the end is near; without a pause this would spin until it comes.
            Err(mpsc::RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(20)),
        }
        if let Some(status) = child.try_wait().context("waiting for a program")? {
            break status;
        }
        if started.elapsed() > LIMIT {
            child.kill().context("ending a program that took too long")?;
        }
        screen.progress(tail.back().map_or("", String::as_str));
    };
    for line in lines.try_iter().filter(|line| !line.is_empty()) {
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    screen.done(status.success());
    if !status.success() {
        let tail = Vec::from(tail).join("\n  ");
        bail!("{label}: {status}; the end of its output:\n  {tail}");
    }
    Ok(())
}

/// Runs a short program and returns what it wrote to standard output; on failure the error carries what it
/// wrote to standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("starting {}", describe(command)))?;
    judge(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Like [`output`], with `input` on standard input.
pub(crate) fn feed(command: &mut Command, input: &[u8]) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", describe(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that stops reading early says why on standard error, which is the better message.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {}", describe(command)))?;
    judge(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Becomes the other program; returns only when that is not possible.
pub(crate) fn replace(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("starting {}", describe(command)))
}

/// A command from a program and its arguments.
pub(crate) fn command<I, S>(program: impl AsRef<std::ffi::OsStr>, arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn judge(command: &Command, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!("{}: {}: {}", describe(command), output.status, last_lines(&stderr, TAIL))
}

/// The last `count` lines of a text.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n  ")
}

/// The program and its first arguments, as one would type them.
pub(crate) fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().take(4).map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Where a step's progress is shown: one line that is redrawn on a terminal, a line now and then elsewhere.
struct Screen {
    label: String,
    started: Instant,
    drawn: Instant,
    terminal: bool,
}

impl Screen {
    fn new(label: &str) -> Self {
        let now = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        if !terminal {
            eprintln!("… {label}");
        }
        Self { label: label.to_owned(), started: now, drawn: now, terminal }
    }

    fn progress(&mut self, newest: &str) {
        let pause = if self.terminal { REDRAW } else { HEARTBEAT };
        if self.drawn.elapsed() < pause {
            return;
        }
        self.drawn = Instant::now();
        let seconds = self.started.elapsed().as_secs();
        let newest: String = newest.chars().filter(|c| !c.is_control()).take(60).collect();
        if self.terminal {
            eprint!("\r\x1b[K… {} ({seconds} s) {newest}", self.label);
        } else {
            eprintln!("… {} ({seconds} s) {newest}", self.label);
        }
    }

    fn done(&self, well: bool) {
        let mark = if well { "✓" } else { "✗" };
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        eprintln!("{clear}{mark} {} ({:.1} s)", self.label, self.started.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_ends_with_its_output() {
        let error = run("listing", command("ls", ["/nowhere-at-all"])).unwrap_err();
        assert!(error.to_string().contains("/nowhere-at-all"), "{error}");
    }

    #[test]
    fn a_fed_program_reads_its_input() {
        assert_eq!(feed(&mut Command::new("cat"), b"abc").unwrap(), "abc");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\n  c");
    }
}
