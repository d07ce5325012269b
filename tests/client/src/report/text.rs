//! A report for people.

use std::fmt;

use super::Report;
use crate::attempt::Mode;
use crate::observer::observation::{Listener, Role};
use crate::outcome::Outcome;

/// Runs of each member that are shown; the JSON has all.
const SHOWN: usize = 40;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for judged in &self.writers {
            let (summary, verdict) = (&judged.summary, &judged.verdict);
            let identity = &summary.identity;
            let what = if identity.mode == Mode::Read { "reads" } else { identity.workload.word() };
            writeln!(
                f,
                "{:<32} {what:<9} {:<6} ok {:<6} error {:<4} unknown {:<3} (there {}, not {})  longest gap {} ms",
                identity.writer,
                identity.mode.word(),
                summary.ok,
                summary.error,
                summary.unknown,
                verdict.unknown_present,
                verdict.unknown_absent,
                summary.longest_gap.ms,
            )?;
            for (failure, count) in &summary.failures {
                writeln!(f, "    {count:>6} × {failure}")?;
            }
            if !verdict.examples.is_empty() {
                writeln!(f, "    {}", verdict.examples.join(", "))?;
            }
        }
        for reign in &self.members.reigns {
            let (timeline, member) = (reign.timeline, &reign.member);
            writeln!(f, "timeline {timeline}: {member} acknowledged {}", reign.acknowledged)?;
        }
        self.bands(f)?;
        let list = |pairs: Vec<String>| if pairs.is_empty() { "none".to_owned() } else { pairs.join(", ") };
        let gaps = self.longest_gaps.iter().map(|(kind, gap)| format!("{kind} {} ms", gap.ms)).collect();
        let codes = self.sqlstates.iter().map(|(code, count)| format!("{code} × {count}")).collect();
        writeln!(f, "longest gap: {}", list(gaps))?;
        writeln!(f, "failures by SQLSTATE: {}", list(codes))?;
        writeln!(
            f,
            "attempts: {} ok, {} error, {} unknown",
            self.attempts(Outcome::Ok),
            self.attempts(Outcome::Error),
            self.attempts(Outcome::Unknown),
        )?;
        for what in &self.unjudged {
            writeln!(f, "not judged: {what}")?;
        }
        for what in &self.violations {
            writeln!(f, "VIOLATED {what}")?;
        }
        let end = if self.clean {
            "every promise kept".to_owned()
        } else {
            format!("{} promises violated", self.violations.len())
        };
        write!(f, "{end}")
    }
}

impl Report {
    /// What was seen of each member over time, from the first look at any.
    fn bands(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin =
            self.observed.iter().filter_map(|observed| observed.runs.first()).map(|run| run.began).min();
        for observed in &self.observed {
            writeln!(f, "{}:", observed.host)?;
            for run in observed.runs.iter().take(SHOWN) {
                let ms = |time: u64| time.saturating_sub(begin.unwrap_or(0)) / 1000;
                let listener = match run.seen.listener {
                    Listener::Up => "up",
                    Listener::Refused => "refused",
                    Listener::Timeout => "time-out",
                    Listener::Unknown => "unknown",
                };
                let role = match run.seen.role {
                    Role::Master => "master",
                    Role::Standby => "standby",
                    Role::Unknown => "role unknown",
                };
                write!(f, "    {:>8} – {:>8} ms  {listener}, {role}", ms(run.began), ms(run.ended))?;
                if let Some(timeline) = run.seen.timeline {
                    write!(f, ", timeline {timeline}")?;
                }
                if let Some(code) = &run.seen.code {
                    write!(f, ", {code}")?;
                }
                writeln!(f, " ({} looks)", run.looks)?;
            }
            if let Some(more) = observed.runs.len().checked_sub(SHOWN + 1) {
                writeln!(f, "    … and {} more", more + 1)?;
            }
        }
        if self.masters.two_ms > 0 {
            writeln!(f, "two members out of recovery at once for {} ms", self.masters.two_ms)?;
        }
        Ok(())
    }
}
