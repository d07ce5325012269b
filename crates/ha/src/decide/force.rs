//! A promotion that a human forces although no election can be won: `allowDataLoss` (§1, "not covered").
//!
//! It is for a named member and for the epoch that the human saw, so it happens at most once: whatever ends that epoch
//! ends the wish, and a leader that serves raises its epoch to end it. It waits until no safe election came about, is
//! refused while a longer copy is at hand, and records what it gave up. From then on only this member's copy is relied
//! on: until its epoch is committed nobody is elected without it, so that no later election takes the commits that it
//! does keep for given up, too. Everything that other members hold beyond it has diverged, like after any promotion.
//! Proved by `forced_*` in the tests and by the simulator, where `force-*` are mutations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::announcement::Condition;
use crate::decision::{Purpose, Reason, Refusal};
use crate::electorate::Electorate;
use crate::promise::Bootstrap;
use crate::record::{DataLoss, Record};
use crate::settings::Forced;
use crate::types::{Lsn, MemberId, Position};
use crate::view::Standby;

use super::campaign::{self, Vote};
use super::case::Case;

/// How long a safe election may take, before this member seals itself by force and again before it wins.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether a human wants this member to lead by force in the present epoch, and nothing speaks against it.
pub(super) fn is_wished(case: &mut Case<'_>, standby: &Standby) -> bool {
    let Some(forced) = case.view.settings.forced.clone() else { return false };
    let epoch = case.epoch();
    if forced.member != case.me().name || !is_for(case, &forced) {
        case.memory.forced_since = None;
        return false;
    }
    if let Some(refusal) = refusal(case, standby) {
        if refusal == Refusal::LeaderServes {
            case.memory.force_refused = Some(epoch);
        }
        case.memory.forced_since = None;
        case.because(Reason::ForceRefused { epoch, refusal });
        return false;
    }
    if case.memory.forced_since.is_none_or(|(known, _)| known != epoch) {
        case.memory.forced_since = Some((epoch, case.now));
    }
    case.because(Reason::ForceWaits { epoch });
    true
}

/// Whether it is for this very epoch.
fn is_for(case: &Case<'_>, forced: &Forced) -> bool {
    forced.epoch == case.epoch() || (!case.memory.rules.force_once && forced.epoch <= case.epoch())
}

/// What speaks against it, whatever the human wants.
fn refusal(case: &Case<'_>, standby: &Standby) -> Option<Refusal> {
    let promise = &case.view.promise;
    if !case.electable()
        || case.view.terminating
        || promise.rewinding
        || promise.bootstrap != Bootstrap::Member
    {
        return Some(Refusal::Unfit);
    }
    let epoch = case.epoch();
    let leads = case.leader_peer().is_some_and(|peer| {
        case.now.since(peer.heard_at) <= case.view.settings.detection
            && peer.announcement.leads.is_some_and(|leads| leads >= epoch)
    });
    if leads || case.memory.force_refused == Some(epoch) {
        return Some(Refusal::LeaderServes);
    }
    let mine = standby.end.unwrap_or(Position {
        timeline: standby.timeline,
        lsn: standby.received.max(standby.replayed).unwrap_or_default(),
    });
    case.fresh_peers()
        .filter(|said| case.view.settings.electable.contains(&said.member.name) && !said.terminating)
        .filter(|said| said.condition == Condition::Standby)
        .filter_map(|said| {
            let told = said.timeline.zip(said.flushed).map(|(timeline, lsn)| Position { timeline, lsn });
            let position = said.report.as_ref().map(|report| report.position).or(told)?;
            Some((said.member.clone(), position))
        })
        .max_by_key(|(_, position)| *position)
        .filter(|(_, position)| *position > mine)
        .map(|(member, position)| Refusal::AnotherHoldsMore { member, position })
}

/// Whether a safe election has had its time since this member was asked, and since it is sealed.
pub(super) fn others_had_time(case: &mut Case<'_>) -> bool {
    let sealed = case.memory.sealed_since.map(|(_, at)| at);
    let Some(since) = case.memory.forced_since.map(|(_, at)| at).max(sealed) else { return false };
    let due = since.after(PATIENCE);
    case.wake(due);
    case.now >= due
}

/// The swap. Only this member's copy is relied on from here: its own electorate stands for all the older ones.
pub(super) fn win(case: &mut Case<'_>, mut next: Record, votes: &BTreeMap<MemberId, Vote>, end: Position) {
    let me = case.me().clone();
    let electorate = campaign::new_electorate(case, &next, votes, end, false);
    next.electorates.clear();
    if case.memory.rules.force_counts {
        next.widen(Electorate::new(me.clone(), BTreeSet::new(), 0));
    }
    next.widen(electorate);
    let known_bytes = known_bytes(case, votes, end.lsn);
    next.data_loss = Some(DataLoss {
        epoch: next.epoch,
        member: me,
        kept: end,
        former: case.record().leader.as_ref().map(|leader| leader.name.clone()),
        known_bytes,
    });
    case.because(Reason::Forcing { epoch: next.epoch, position: end, known_bytes });
    case.swap(next, Purpose::Force);
}

/// How far any copy that was heard of in this term reached beyond this position.
fn known_bytes(case: &Case<'_>, votes: &BTreeMap<MemberId, Vote>, kept: Lsn) -> Option<u64> {
    let leader = case.memory.leader_flushed.filter(|(epoch, _)| *epoch == case.epoch()).map(|(_, at)| at);
    let others = votes.iter().filter(|(member, _)| *member != case.me()).map(|(_, vote)| vote.position.lsn);
    leader.into_iter().chain(others).max().map(|furthest| furthest.0.saturating_sub(kept.0))
}

/// A leader that serves ends the epoch that was asked for, so that the wish is not granted later, when it has become
/// another one.
pub(super) fn refuse(case: &mut Case<'_>) {
    let epoch = case.epoch();
    if case.view.settings.forced.as_ref().is_none_or(|forced| forced.epoch != epoch) || !case.may_swap() {
        return;
    }
    case.because(Reason::ForceRefused { epoch, refusal: Refusal::LeaderServes });
    let mut next = Record { epoch: epoch.next(), ..case.record().clone() };
    next.remember_term(None);
    case.swap(next, Purpose::LeadOn);
}
