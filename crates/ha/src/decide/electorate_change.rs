//! Who must flush a commit: changed jointly, widened before and narrowed after (§6, I8, I9).
//!
//! An election must satisfy every electorate in the record, a commit the one whose names are in force. The record is
//! widened, the names are set, and only when they are surely in force and w of the new standbys have flushed
//! everything written until then, the record is narrowed. Nobody who does not stream is ever added.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::announcement::Condition;
use crate::decision::{Purpose, Reason};
use crate::electorate::Electorate;
use crate::memory::Track;
use crate::record::Record;
use crate::settings::{DurabilityMode, WhenShort};
use crate::types::{Lsn, MemberId};
use crate::view::{Gate, Primary};

use super::asynchronous;
use super::case::{Case, names_for};

/// How long a standby streams before it counts.
const SETTLED: Duration = Duration::from_secs(1);
/// How far behind a standby may be that is added: a few seconds of heavy writing.
const CAUGHT_UP: u64 = 16 << 20;

/// Follows each standby's stream, and since when the names are in force.
pub(super) fn observe(case: &mut Case<'_>, primary: &Primary) {
    let now = case.now;
    for (incarnation, sender) in &primary.walsenders {
        let track = case.memory.standbys.entry(*incarnation).or_insert(Track {
            streaming_since: None,
            mark: primary.flushed,
            well_at: now,
        });
        if sender.streaming {
            track.streaming_since.get_or_insert(now);
            if sender.flushed.is_some_and(|flushed| flushed >= track.mark) {
                track.mark = primary.flushed;
                track.well_at = now;
            }
        } else {
            track.streaming_since = None;
        }
    }
    for (incarnation, track) in &mut case.memory.standbys {
        if !primary.walsenders.contains_key(incarnation) {
            track.streaming_since = None;
        }
    }
    if primary.gate == Gate::Open {
        case.memory.gate_opened = true;
    }
    match &mut case.memory.names_in_force {
        Some((names, at)) if *names == primary.names => {
            // A position of a later view than the first: read after the names were in force, whatever the order of
            // the driver's probes.
            at.get_or_insert(primary.flushed);
        }
        other => *other = Some((primary.names.clone(), None)),
    }
}

/// Members of the newest electorate that have flushed this far.
pub(super) fn flushed(case: &Case<'_>, primary: &Primary, at: Lsn) -> BTreeSet<MemberId> {
    let Some(newest) = case.record().current_electorate() else { return BTreeSet::new() };
    newest
        .members
        .iter()
        .filter(|member| {
            primary
                .walsenders
                .get(&member.incarnation)
                .is_some_and(|sender| sender.flushed.is_some_and(|flushed| flushed >= at))
        })
        .cloned()
        .collect()
}

/// Whether the newest electorate by itself holds everything: its names are in force, and w of it have flushed what
/// was written before they were (or, before the gate ever opened, this term's first record: I8).
fn settled(case: &Case<'_>, primary: &Primary) -> bool {
    let Some(newest) = case.record().current_electorate() else { return false };
    let names = names_for(newest);
    if primary.names != names {
        return false;
    }
    let at = if !case.memory.rules.commit_own_epoch {
        Lsn(0)
    } else if case.memory.gate_opened {
        match &case.memory.names_in_force {
            Some((known, Some(at))) if *known == names => (*at).max(primary.first_record),
            _ => return false,
        }
    } else {
        primary.first_record
    };
    newest.acknowledged_by(&flushed(case, primary, at))
}

/// Takes at most one step of a change, or commits the epoch (§4 step 9).
pub(super) fn step(case: &mut Case<'_>, primary: &Primary) {
    if !case.may_swap() {
        return;
    }
    let record = case.record();
    let Some(newest) = record.current_electorate() else { return };
    let committed = record.fence_xid.is_some();
    if (!committed || record.electorates.len() > 1) && settled(case, primary) {
        let fence_xid = record.fence_xid.or(primary.fence_xid);
        if fence_xid.is_some() {
            let next = Record { electorates: vec![newest.clone()], fence_xid, ..record.clone() };
            case.because(Reason::ElectorateChange { members: newest.members.len(), acks: newest.acks });
            case.swap(next, if committed { Purpose::Narrow } else { Purpose::CommitEpoch });
            return;
        }
    }
    let wanted = wanted(case, primary, newest);
    if wanted != *newest {
        if primary.names != names_for(newest) && case.memory.rules.one_change_at_a_time {
            // An order of the names before is still on its way; changing back now would take the old names for
            // the new ones and narrow to them just when that order takes effect.
            case.waiting("the names of the last change to be in force");
            return;
        }
        let mut next = record.clone();
        if !case.memory.rules.joint_change {
            next.electorates.clear();
        }
        case.because(Reason::ElectorateChange { members: wanted.members.len(), acks: wanted.acks });
        next.widen(wanted);
        case.swap(next, Purpose::Widen);
        return;
    }
    mode(case);
}

/// Goes from one mode to the other once the electorate allows it: a lease needs an empty one.
fn mode(case: &mut Case<'_>) {
    let record = case.record();
    let lease_millis = asynchronous::lease_millis(case);
    let alone = record.electorates.iter().all(|electorate| electorate.members.is_empty());
    if record.lease_millis.is_some() != lease_millis.is_some() && alone {
        let next = Record { lease_millis, ..record.clone() };
        case.swap(next, Purpose::Renew);
    } else {
        asynchronous::renew(case);
    }
}

/// The electorate as it should be.
fn wanted(case: &mut Case<'_>, primary: &Primary, newest: &Electorate) -> Electorate {
    let settings = &case.view.settings;
    let me = case.me().clone();
    if settings.mode == DurabilityMode::Async || case.record().lease_millis.is_some() {
        return Electorate::new(me, BTreeSet::new(), 0);
    }
    let now = case.now;
    let mut members = BTreeSet::new();
    let mut wake = Vec::new();
    for member in &newest.members {
        let said = case.fresh_peers().find(|said| said.member.name == member.name);
        let replaced = said.is_some_and(|said| said.member.incarnation != member.incarnation);
        let going = said.is_some_and(|said| said.terminating)
            || settings.is_leaving(&member.name)
            || !settings.electable.contains(&member.name);
        let well_at = case.memory.standbys.get(&member.incarnation).map(|track| track.well_at);
        // Never seen by this agent: counted from the beginning of its own watch.
        let well_at = well_at.or(case.memory.epoch_seen.map(|(_, at)| at)).unwrap_or(now);
        let gone_at = well_at.after(settings.shrink_after);
        if !(replaced || going || now >= gone_at) {
            wake.push(gone_at);
            members.insert(member.clone());
        }
    }
    for said in case.fresh_peers() {
        let member = &said.member;
        let streams = primary.walsenders.get(&member.incarnation);
        let since = case.memory.standbys.get(&member.incarnation).and_then(|track| track.streaming_since);
        let eligible = *member != me
            && !newest.members.contains(member)
            && settings.electable.contains(&member.name)
            && !settings.is_leaving(&member.name)
            && !said.terminating
            // What is not consistent yet can neither report nor be elected.
            && said.condition != Condition::Starting
            && said.sealed_below <= case.epoch();
        if !eligible {
            continue;
        }
        if !case.memory.rules.add_only_streaming {
            members.insert(member.clone());
            continue;
        }
        let near = streams.is_some_and(|sender| {
            sender.streaming
                && sender.flushed.is_some_and(|at| primary.flushed.0.saturating_sub(at.0) <= CAUGHT_UP)
        });
        if let Some(since) = since.filter(|_| near) {
            if now.since(since) >= SETTLED {
                members.insert(member.clone());
            } else {
                wake.push(since.after(SETTLED));
            }
        }
    }
    for at in wake {
        case.wake(at);
    }
    let others = settings.electable.iter().filter(|name| **name != me.name).count();
    let floor = (settings.acks as usize).min(others);
    if settings.when_short == WhenShort::Block && members.len() < floor {
        // Never fewer than asked for: keep waiting for those that were there.
        members.extend(newest.members.iter().cloned());
        return Electorate::new(me, members, settings.acks.max(newest.acks));
    }
    Electorate::new(me, members, settings.acks)
}
