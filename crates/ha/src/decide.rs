//! The decision: what one agent does next, from what it knows and remembers.
//!
//! Level-triggered: the same view gives the same answer until it changes, and every long act shows in the view as
//! [`Postgres::Busy`]. It decides by whom the record names; each family of rules has a file of its own.
//! It must never act as a leader on anything but a record that names this very life, nor touch data that may be the
//! last copy. `matriarch-sim` runs it through thousands of faults.

mod asynchronous;
mod bootstrap;
mod campaign;
mod case;
mod divergence;
mod electorate_change;
mod fence;
mod follow;
mod force;
mod handover;
mod lead;
mod lead_on;
mod suspect;

#[cfg(test)]
mod tests;

use crate::announcement::Announcement;
use crate::decision::{Action, Decision, Reason, StopMode};
use crate::memory::{Memory, Reported};
use crate::record::{Phase, Record, is_older};
use crate::types::{Epoch, Instant};
use crate::view::{Postgres, RecordView, View};

use case::{Case, Snapshot};

/// What to do now, why, and when to look again. Total: every view has an answer, most often "nothing, because".
pub fn decide(memory: &mut Memory, view: &View, now: Instant) -> Decision {
    let mut out = Decision::default();
    let newest_known = newest_known(memory, view);
    match &view.record {
        RecordView::Known { record, version, confirmed_at, .. } => {
            if let Some(why) = tampered(memory, record, newest_known.as_ref()) {
                out.because.push(Reason::RecordTampered { why });
                without_record(memory, view, now, &mut out, newest_known);
            } else if let Some(why) = heard_of_newer(memory, view, record) {
                out.because.push(Reason::RecordUnknown { why });
                let snapshot = Snapshot { record, version: None, confirmed_at: None };
                with_record(memory, view, now, &mut out, snapshot);
                memory.record = Some(Record::clone(record));
            } else {
                let snapshot = Snapshot { record, version: Some(version), confirmed_at: Some(*confirmed_at) };
                with_record(memory, view, now, &mut out, snapshot);
                memory.record = Some(Record::clone(record));
            }
        }
        RecordView::Unknown { why } => {
            out.because.push(Reason::RecordUnknown { why: why.clone() });
            without_record(memory, view, now, &mut out, newest_known);
        }
        RecordView::Missing => {
            out.because.push(Reason::RecordMissing);
            without_record(memory, view, now, &mut out, newest_known);
        }
        RecordView::Tampered { why } => {
            out.because.push(Reason::RecordTampered { why: why.clone() });
            without_record(memory, view, now, &mut out, newest_known);
        }
    }
    out
}

/// The newest record that this member has ever seen, in memory or beside its promise.
fn newest_known(memory: &Memory, view: &View) -> Option<Record> {
    let kept = view.promise.last_record.as_ref();
    let seen = memory.record.as_ref();
    match (kept, seen) {
        (Some(kept), Some(seen)) => Some(if seen.is_older_than(kept) { kept } else { seen }.clone()),
        (one, other) => one.or(other).cloned(),
    }
}

/// Why this record is none of ours: one that was written later is known, or the same one with other content. Somebody
/// put back an old one, or edited this one (§2, K20).
fn tampered(memory: &Memory, record: &Record, newest_known: Option<&Record>) -> Option<String> {
    let known = newest_known?;
    let rules = &memory.rules;
    if rules.newest_record && record.epoch < known.epoch {
        return Some(format!("epoch {} is older than one that was seen before", record.epoch));
    }
    if !rules.newest_generation {
        return None;
    }
    let (epoch, generation) = (record.epoch, record.generation);
    if epoch == known.epoch && record.is_older_than(known) {
        return Some(format!("write {generation} of epoch {epoch} is older than one that was seen before"));
    }
    record.contradicts(known).then(|| format!("write {generation} of epoch {epoch} has changed since"))
}

/// Somebody says that the record has been written since. Most often a read will show it in a moment; when an old record
/// was put back, none will, and nothing is decided on it that needs the newest.
fn heard_of_newer(memory: &Memory, view: &View, record: &Record) -> Option<String> {
    if !memory.rules.heard_generation {
        return None;
    }
    let read = (record.epoch, record.generation);
    let heard = |said: &Announcement| (said.record_epoch, said.record_generation);
    let newer =
        view.peers.values().map(|peer| &peer.announcement).find(|said| is_older(read, heard(said)))?;
    Some(format!(
        "{} has seen write {} of epoch {}",
        newer.member, newer.record_generation, newer.record_epoch
    ))
}

/// Unknown is never free (§2): nobody leads anew, a leader leads on while it is confirmed, a standby keeps following.
fn without_record(
    memory: &mut Memory,
    view: &View,
    now: Instant,
    out: &mut Decision,
    newest_known: Option<Record>,
) {
    if let Some(record) = newest_known.filter(|record| record.phase == Phase::Running) {
        let snapshot = Snapshot { record: &record, version: None, confirmed_at: None };
        with_record(memory, view, now, out, snapshot);
    } else if matches!(view.postgres, Postgres::Primary(_)) {
        out.actions.push(Action::Stop { mode: StopMode::Immediate });
    }
}

fn with_record(memory: &mut Memory, view: &View, now: Instant, out: &mut Decision, snapshot: Snapshot<'_>) {
    let mut case = Case { memory, view, now, snapshot, out };
    observe(&mut case);
    if snapshot.record.phase == Phase::Uninitialised {
        bootstrap::uninitialised(&mut case);
        return;
    }
    if let (Some(ours), Some(theirs)) = (view.promise.system_identifier, snapshot.record.system_identifier)
        && ours != theirs
        && view.promise.bootstrap != crate::promise::Bootstrap::Unrecorded
    {
        case.because(Reason::RecordTampered {
            why: format!("it is of system {theirs}, the data here of system {ours}"),
        });
        if matches!(view.postgres, Postgres::Primary(_)) {
            case.act(Action::Stop { mode: StopMode::Immediate });
        }
        return;
    }
    if view.settings.paused && view.settings.leaving.contains(&view.member.name) {
        case.because(Reason::Paused);
    }
    if snapshot.record.names(&view.member) {
        lead_on::recorded(&mut case);
    } else {
        follow::member(&mut case);
    }
}

/// Notes what is new: the epoch, reports, signs of life, the leader's position.
fn observe(case: &mut Case<'_>) {
    let (view, now, record) = (case.view, case.now, case.record());
    if case.memory.epoch_seen.is_none_or(|(epoch, _)| epoch != record.epoch) {
        case.memory.epoch_seen = Some((record.epoch, now));
        case.memory.leader_at = Some(now);
        case.memory.satisfied_since = None;
        case.memory.handover_since = None;
        if case.memory.diverged.is_some_and(|epoch| epoch != record.epoch) {
            case.memory.diverged = None;
        }
    }
    if record.handover.is_some() && case.memory.handover_since.is_none() {
        case.memory.handover_since = Some(now);
    }
    if view.terminating && case.memory.terminating_since.is_none() {
        case.memory.terminating_since = Some(now);
    }
    asynchronous::observe(case);
    for peer in view.peers.values() {
        let said = &peer.announcement;
        if let Some(report) = &said.report {
            let newer = case
                .memory
                .reports
                .get(&said.member)
                .is_none_or(|known| known.report.sealed_below <= report.sealed_below);
            if newer {
                let reported = Reported {
                    report: report.clone(),
                    boot: said.boot,
                    released: said.released.then_some(said.record_epoch),
                    older_life: said.older_life && case.memory.rules.doubt_older_lives,
                };
                case.memory.reports.insert(said.member.clone(), reported);
            }
        }
        if let (Some(epoch), Some(flushed)) = (said.leads, said.flushed)
            && epoch == record.epoch
            && record.names(&said.member)
        {
            case.memory.leader_flushed = Some((epoch, flushed));
        }
    }
    let oldest = if case.memory.rules.fresh_seals { record.epoch } else { Epoch(0) };
    case.memory.reports.retain(|_, known| known.report.sealed_below > oldest);
    let sealed = view.promise.sealed_below;
    if sealed > record.epoch {
        if case.memory.sealed_since.is_none_or(|(below, _)| below != sealed) {
            case.memory.sealed_since = Some((sealed, now));
        }
    } else {
        case.memory.sealed_since = None;
    }
}
