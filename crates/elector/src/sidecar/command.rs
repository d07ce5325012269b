//! Commands under a warden: those of `--run` and of the hooks, ended with all their children before the deadline.

use std::{io, process::Stdio, time::Duration};

use ha::Instant;
use kubernetes::clock::boottime;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin, Command},
};

use super::ward::{WARD, Word};
use crate::{elector::Handle, lead::Lead};

/// What a command is told of the election, besides its arguments.
#[derive(Debug, Clone)]
pub struct Told {
    /// The election's name.
    pub election: String,
    /// Who leads.
    pub leader: String,
    /// Who runs the command.
    pub me: String,
    /// The epoch.
    pub epoch: Option<u64>,
}

/// A command that runs under its ward.
#[derive(Debug)]
pub struct Running {
    ward: Child,
    input: ChildStdin,
}

impl Running {
    /// Starts it; it must have ended by `until`, and is asked to end `grace` before.
    ///
    /// # Errors
    /// When the ward cannot be started.
    pub async fn start(words: &[String], told: &Told, until: Instant, grace: Duration) -> io::Result<Self> {
        let mut ward = Command::new("/proc/self/exe")
            .arg(WARD)
            .arg(grace.as_millis().to_string())
            .args(words)
            .env("ELECTION", &told.election)
            .env("ELECTION_LEADER", &told.leader)
            .env("ELECTION_SELF", &told.me)
            .env("ELECTION_EPOCH", told.epoch.map_or_else(String::new, |epoch| epoch.to_string()))
            .stdin(Stdio::piped())
            .spawn()?;
        let input = ward.stdin.take().ok_or_else(|| io::Error::other("a ward without input"))?;
        let mut running = Self { ward, input };
        running.say(Word::Until(until)).await;
        Ok(running)
    }

    /// Tells the ward; a ward that has ended needs no word.
    pub async fn say(&mut self, word: Word) {
        let _ = self.input.write_all(word.to_string().as_bytes()).await;
    }

    /// Until it has ended with all its children; its code, or 128 and the signal.
    ///
    /// # Errors
    /// When its end cannot be told.
    pub async fn ended(&mut self) -> io::Result<u8> {
        let status = self.ward.wait().await?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    }
}

/// How much before the deadline everything must have ended.
pub fn margin(ttl: Duration) -> Duration {
    (ttl / 50).clamp(Duration::from_millis(20), Duration::from_millis(200))
}

/// That much before an instant.
pub fn before(at: Instant, by: Duration) -> Instant {
    Instant(at.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
}

/// Times of commands.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The election's TTL.
    pub ttl: Duration,
    /// From SIGTERM to SIGKILL when the term ends in good order.
    pub grace: Duration,
}

/// Runs the command for as long as `lead` holds. Its code when it ended by itself, `None` when it was ended.
///
/// # Errors
/// When it cannot be started or watched.
pub async fn run_while(
    lead: &mut Lead,
    words: &[String],
    told: &Told,
    bounds: Bounds,
) -> io::Result<Option<u8>> {
    let margin = margin(bounds.ttl);
    let Some(until) = lead.until() else { return Ok(None) };
    // Not renewed for long: asked to end a fifth of the TTL before the deadline.
    let last_call = (bounds.ttl / 5).min(bounds.grace);
    let mut running = Running::start(words, told, before(until, margin), last_call).await?;
    let mut ended = false;
    loop {
        tokio::select! {
            code = running.ended() => return code.map(|code| (!ended).then_some(code)),
            () = lead.changed() => {}
        }
        match lead.must_end_by() {
            Some(until) => running.say(Word::Until(before(until, margin))).await,
            // Another one leads already, or the deadline passed: the ward knows that by its own clock.
            None => running.say(Word::End(boottime())).await,
        }
        if !lead.holds() && !ended {
            ended = true;
            running.say(Word::End(boottime().after(bounds.grace))).await;
        }
    }
}

/// The duty of `--run`: the command's own end ends this process, with its code.
///
/// # Errors
/// When the command cannot be started.
pub async fn keep(elector: Handle, words: Vec<String>, mut told: Told, bounds: Bounds) -> io::Result<u8> {
    loop {
        let mut lead = elector.lead().await;
        told.leader.clone_from(&told.me);
        told.epoch = Some(lead.epoch());
        tracing::info!(command = ?words, epoch = lead.epoch(), "starting the command");
        let code = run_while(&mut lead, &words, &told, bounds).await?;
        if let Some(code) = code {
            tracing::info!(command = ?words, code, "the command ended by itself");
            return Ok(code);
        }
        tracing::info!(command = ?words, "the command was ended with the term");
    }
}
