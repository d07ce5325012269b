//! Seal, report, count, win (§4 steps 2–5, I2–I6).
//!
//! A candidate wins by compare-and-swap when the sealed members whose position is not above its own satisfy every
//! electorate of the very snapshot that it swaps on. Counting less, or seals of an older epoch, loses commits:
//! `i4_*`, `i5_*` in the tests and the mutations of the simulator show it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::announcement::{older_life_may_lead, seal_report};
use crate::decision::{Action, Purpose, Reason};
use crate::electorate::Electorate;
use crate::record::{LeaderId, Record};
use crate::settings::{DurabilityMode, WhenShort};
use crate::types::{MemberId, Position, Timeline};
use crate::view::Standby;

use super::asynchronous;
use super::case::Case;
use super::divergence::{Relation, relation};
use super::{force, suspect};

/// By how much each candidate waits for the one before it in rank.
const RANK_DELAY: Duration = Duration::from_millis(300);
/// By how much a candidate that is to be restarted soon, or not the wanted successor, waits for others.
const UNWANTED_DELAY: Duration = Duration::from_millis(700);

/// A sealed member's word, in this life.
#[derive(Clone, Copy)]
pub(super) struct Vote {
    pub(super) position: Position,
    sealed_below: crate::types::Epoch,
    /// Of the recorded leader: in a life that excludes older ones.
    recorded_life: bool,
    /// An older life of it may still lead.
    older_life: bool,
}

/// Suspicion and what follows from it, for a standby. `certain`: there is no leader to hear (this member is the
/// recorded one and does not lead). Answers whether this member is out of the leader's reach: sealed or sealing.
pub(super) fn campaign(case: &mut Case<'_>, standby: &Standby, certain: Option<Reason>) -> bool {
    let epoch = case.epoch();
    let voter = is_voter(case, case.me());
    let suspicion = certain.or_else(|| suspect::suspicion(case));
    let suspects = suspicion.is_some();
    let forced = force::is_wished(case, standby);
    if let Some(reason) = suspicion {
        case.because(reason);
        case.out.suspects = Some(epoch);
    }
    let sealed = case.view.promise.sealed_below > epoch;
    if !sealed {
        if !suspects || !(voter || forced) || !case.electable() || case.snapshot.version.is_none() {
            return false;
        }
        if !asynchronous::may_elect(case) {
            return false;
        }
        let lonely = !suspect::shared(case, epoch) && !asynchronous::is_async(case.record());
        if lonely && !(forced && force::others_had_time(case)) {
            case.because(Reason::SuspicionNotShared { epoch: epoch.next() });
            return false;
        }
        case.act(Action::Seal { below: epoch.next() });
        return true;
    }
    if standby.upstream.is_some() || standby.streaming {
        // Sealed on disk but not yet off the stream: the same order again.
        case.act(Action::Seal { below: case.view.promise.sealed_below });
        return true;
    }
    let Some(end) = standby.end else {
        case.because(Reason::WaitingForEndOfLog);
        return true;
    };
    if !(voter || forced) || !case.electable() || case.view.terminating || case.snapshot.version.is_none() {
        return true;
    }
    // A leader that is heard raises its epoch over a seal; one that cannot must not keep a sealed quorum waiting.
    let patience = case.view.settings.detection;
    let sealed_at = case.memory.sealed_since.map_or(case.now, |(_, at)| at);
    if !suspects && case.now.since(sealed_at) < patience {
        case.wake(sealed_at.after(patience));
        case.waiting("the leader, which is heard, to raise its epoch over this member's seal");
        return true;
    }
    count(case, standby, end, forced);
    true
}

/// Whether an electorate rests on this member; with a lease instead of a quorum anybody electable is a candidate.
fn is_voter(case: &Case<'_>, member: &MemberId) -> bool {
    asynchronous::is_async(case.record())
        || case
            .record()
            .electorates
            .iter()
            .any(|electorate| electorate.members.contains(member) || electorate.leader == *member)
}

/// The votes that count for a candidate at this position: sealed above the epoch, and not ahead of it (I5).
fn votes(case: &Case<'_>) -> BTreeMap<MemberId, Vote> {
    let mut votes: BTreeMap<MemberId, Vote> = case
        .memory
        .reports
        .iter()
        .map(|(member, known)| {
            let vote = Vote {
                position: known.report.position,
                sealed_below: known.report.sealed_below,
                recorded_life: known.of_recorded_life(case.record()),
                older_life: known.older_life,
            };
            (member.clone(), vote)
        })
        .collect();
    if let Some(report) = seal_report(case.view) {
        votes.insert(
            case.me().clone(),
            Vote {
                position: report.position,
                sealed_below: report.sealed_below,
                recorded_life: case.record().names(case.me()) && case.excludes_older_lives(),
                older_life: older_life_may_lead(case.view) && case.memory.rules.doubt_older_lives,
            },
        );
    }
    votes
}

/// Whether the votes at or below this position elect.
fn elects(case: &Case<'_>, votes: &BTreeMap<MemberId, Vote>, position: Position) -> bool {
    let limited = case.memory.rules.maximum_position;
    let counted: BTreeSet<MemberId> = votes
        .iter()
        .filter(|(_, vote)| !limited || vote.position <= position)
        .map(|(member, _)| member.clone())
        .collect();
    let leader = case.record().leader.as_ref().map(LeaderId::member);
    let leader_counts =
        leader.is_some_and(|leader| votes.get(&leader).is_some_and(|vote| vote.recorded_life));
    if asynchronous::is_async(case.record()) {
        return asynchronous::elects(case, position);
    }
    let doubtful =
        votes.iter().filter(|(_, vote)| vote.older_life).map(|(member, _)| member.clone()).collect();
    case.satisfied(&counted, leader_counts, &doubtful)
}

fn count(case: &mut Case<'_>, standby: &Standby, end: Position, forced: bool) {
    let epoch = case.epoch();
    // Again on this very snapshot: the lease that had ended when this member sealed itself may have been renewed.
    if case.memory.rules.lease_at_win && !asynchronous::may_elect(case) {
        return;
    }
    let votes = votes(case);
    if !elects(case, &votes, end) {
        case.memory.satisfied_since = None;
        case.because(Reason::ElectorateNotSatisfied { epoch: epoch.next(), reports: votes.len() });
        if forced && force::others_had_time(case) {
            let next = next_term(case, standby, &votes, end);
            force::win(case, next, &votes, end);
        }
        return;
    }
    let since = match case.memory.satisfied_since {
        Some((seen, at)) if seen == epoch => at,
        _ => {
            case.memory.satisfied_since = Some((epoch, case.now));
            case.now
        }
    };
    let delay = delay(case, &votes, end);
    if case.now.since(since) < delay {
        case.wake(since.after(delay));
        return;
    }
    win(case, standby, &votes, end);
}

/// How long this candidate lets better ones go first.
fn delay(case: &mut Case<'_>, votes: &BTreeMap<MemberId, Vote>, end: Position) -> Duration {
    let settings = &case.view.settings;
    let wanted = case.record().handover.as_ref().and_then(|handover| handover.to.clone());
    let standing = |member: &MemberId, position: Position| {
        let name = &member.name;
        (
            Reverse(position),
            settings.is_leaving(name),
            wanted.as_ref().is_some_and(|to| to != name),
            Reverse(settings.priority(name)),
            name.ordinal(),
            name.clone(),
        )
    };
    let mine = standing(case.me(), end);
    let leader = case.record().leader.as_ref().map(LeaderId::member);
    let mut better: Vec<_> = case
        .fresh_peers()
        .filter(|said| {
            !said.terminating
                && !said.released
                && leader.as_ref() != Some(&said.member)
                && settings.electable.contains(&said.member.name)
                && is_voter(case, &said.member)
        })
        .filter_map(|said| Some((votes.get(&said.member)?.position, &said.member)))
        .filter(|(position, _)| elects(case, votes, *position))
        .filter(|(position, member)| standing(member, *position) < mine)
        .collect();
    better.sort_by_key(|(position, member)| standing(member, *position));
    let rank = u32::try_from(better.len()).unwrap_or(u32::MAX);
    if let Some((position, member)) = better.first().map(|(position, member)| (*position, (*member).clone()))
    {
        case.because(Reason::AnotherIsBetter { member, position });
    }
    let me = &case.me().name;
    let unwanted = settings.is_leaving(me) || wanted.is_some_and(|to| to != *me);
    RANK_DELAY.saturating_mul(rank) + if unwanted { UNWANTED_DELAY } else { Duration::ZERO }
}

/// The swap that wins (§4 step 5).
fn win(case: &mut Case<'_>, standby: &Standby, votes: &BTreeMap<MemberId, Vote>, end: Position) {
    let mut next = next_term(case, standby, votes, end);
    let everybody = case.view.settings.when_short == WhenShort::Block;
    let electorate = new_electorate(case, &next, votes, end, everybody);
    if !case.memory.rules.keep_electorates {
        next.electorates.clear();
    }
    next.widen(electorate);
    case.because(Reason::Electing { epoch: next.epoch, position: end });
    case.swap(next, Purpose::Win);
}

/// The record of a term that this member leads from this end of its log; its electorates are still the old ones.
fn next_term(case: &Case<'_>, standby: &Standby, votes: &BTreeMap<MemberId, Vote>, end: Position) -> Record {
    let record = case.record();
    let promise = &case.view.promise;
    let epoch = votes
        .values()
        .map(|vote| vote.sealed_below)
        .chain([record.epoch.next(), promise.sealed_below])
        .max()
        .unwrap_or(record.epoch.next());
    let timeline = new_timeline(case, votes, standby);
    let mut next = Record {
        epoch,
        leader: Some(case.this_life()),
        timeline,
        fork_lsn: Some(end.lsn),
        handover: None,
        fence_xid: None,
        lease_millis: asynchronous::lease_millis(case),
        ..record.clone()
    };
    next.remember_term(Some(end.timeline));
    next
}

/// A timeline above every one that was ever recorded, reported, planted or replayed (I11, P11).
fn new_timeline(case: &Case<'_>, votes: &BTreeMap<MemberId, Vote>, standby: &Standby) -> Timeline {
    if !case.memory.rules.unique_timelines {
        return Timeline(standby.timeline.0 + 1);
    }
    let highest = votes
        .values()
        .map(|vote| vote.position.timeline)
        .chain(case.view.promise.planted.iter().copied())
        .chain(case.view.peers.values().filter_map(|peer| peer.announcement.timeline))
        .chain([case.record().highest_timeline(), standby.timeline, case.view.promise.last_timeline])
        .max()
        .unwrap_or_default();
    Timeline(highest.0.saturating_add(1))
}

/// Who lets the new leader's commits through (§4 step 5): those at hand, so that nobody waits for the dead; or
/// `everybody`, under `block`, and as many acks as ever.
pub(super) fn new_electorate(
    case: &Case<'_>,
    next: &Record,
    votes: &BTreeMap<MemberId, Vote>,
    end: Position,
    everybody: bool,
) -> Electorate {
    let settings = &case.view.settings;
    let me = case.me().clone();
    if settings.mode == DurabilityMode::Async {
        return Electorate::new(me, BTreeSet::new(), 0);
    }
    let acks = settings.acks;
    if everybody {
        let (mut members, mut old_acks) = (BTreeSet::new(), 0);
        if let Some(current) = case.record().current_electorate() {
            members.extend(current.members.iter().cloned());
            members.insert(current.leader.clone());
            old_acks = current.acks;
        }
        members.retain(|member| settings.electable.contains(&member.name));
        return Electorate::new(me, members, acks.max(old_acks));
    }
    let members = case
        .fresh_peers()
        .filter(|said| !said.terminating && !settings.is_leaving(&said.member.name))
        .filter(|said| settings.electable.contains(&said.member.name))
        // One that must rewind first cannot acknowledge before the epoch is committed (I12). After a hand-over the
        // win comes before the others have sealed: those about to, with no more than this log holds, count too.
        .filter(|said| match votes.get(&said.member) {
            Some(vote) => relation(next, vote.position) == Relation::InLine,
            None => {
                is_voter(case, &said.member)
                    && said.suspects == Some(case.epoch())
                    && said.timeline == Some(end.timeline)
                    && said.flushed.is_some_and(|flushed| flushed <= end.lsn)
            }
        })
        .map(|said| said.member.clone())
        .collect();
    Electorate::new(me, members, acks)
}
