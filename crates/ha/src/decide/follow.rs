//! A member that is not the recorded leader: clone, start, follow, rewind (§4 step 10, I11, I12, S6, S7).
//!
//! It follows only the recorded leader in its recorded life, and only with a log that goes on from the leader's. It
//! never wipes or rebuilds what may be the last copy.

use std::time::Duration;

use crate::announcement::Condition;
use crate::decision::{Action, Reason, StopMode};
use crate::promise::Bootstrap;
use crate::record::LeaderId;
use crate::types::Position;
use crate::view::{Postgres, Standby, Stopped, Upstream};

use super::campaign;
use super::case::Case;
use super::divergence::{Relation, relation};

/// Between two tries of an act that may fail at once.
pub(super) const RETRY: Duration = Duration::from_secs(2);
/// Between two starts of Postgres.
pub(super) const RESTART: Duration = Duration::from_secs(1);
/// How long a terminating standby stays for its leader to let it out of the electorate.
const LEAVE: Duration = Duration::from_secs(3);

pub(super) fn member(case: &mut Case<'_>) {
    let view = case.view;
    if let Postgres::Primary(_) = &view.postgres {
        case.because(Reason::Superseded { epoch: case.epoch() });
        case.act(Action::Stop { mode: StopMode::Immediate });
        return;
    }
    case.memory.down_since = None;
    if view.terminating && leave(case) {
        return;
    }
    match &view.postgres {
        Postgres::Primary(_) => {}
        Postgres::Unknown { why } => case.waiting(format!("a Postgres that answers: {why}")),
        Postgres::Busy { with } => case.waiting(format!("the end of {with}")),
        Postgres::Starting => {
            if case.memory.acting.take().is_some() {
                // Started as master for a term that has ended since.
                case.because(Reason::Superseded { epoch: case.epoch() });
                case.act(Action::Stop { mode: StopMode::Immediate });
            }
            outlived(case);
            case.waiting("recovery");
        }
        Postgres::Absent => clone(case),
        Postgres::Stopped(stopped) => start(case, stopped),
        Postgres::Standby(standby) => {
            case.memory.acting = None;
            if campaign::campaign(case, standby, None) {
                return;
            }
            follow(case, standby);
        }
    }
}

/// A terminating member stops, after its leader had time to do without it. True when that is all to do.
fn leave(case: &mut Case<'_>) -> bool {
    let since = case.memory.terminating_since.unwrap_or(case.now);
    let needed =
        case.record().current_electorate().is_some_and(|electorate| electorate.members.contains(case.me()));
    match &case.view.postgres {
        Postgres::Standby(_) | Postgres::Starting => {
            if needed && case.now.since(since) < LEAVE {
                case.wake(since.after(LEAVE));
                return false;
            }
            case.act(Action::Stop { mode: StopMode::Fast });
            true
        }
        Postgres::Stopped(_) | Postgres::Absent => {
            case.waiting("the end of the pod");
            true
        }
        _ => false,
    }
}

/// The recorded leader, leading by its own word in its recorded life and the record's epoch.
pub(super) fn serving(case: &Case<'_>) -> Option<Upstream> {
    let leader = case.record().leader.as_ref()?;
    let peer = case.leader_peer().filter(|peer| case.now.since(peer.heard_at) <= RETRY)?;
    let said = &peer.announcement;
    (said.boot == leader.boot && said.leads == Some(case.epoch())).then(|| Upstream {
        member: said.member.clone(),
        boot: said.boot,
        address: said.address.clone(),
        epoch: case.epoch(),
    })
}

/// The promise allows acknowledging this record's epoch, and knows of no later one.
fn may_follow(case: &mut Case<'_>) -> bool {
    let promise = &case.view.promise;
    if promise.sealed_below > case.epoch() {
        case.waiting("an epoch that is not below this member's seal");
        return false;
    }
    if promise.last_epoch > case.epoch() {
        case.waiting("a record that is not older than what was followed before");
        return false;
    }
    true
}

/// An empty volume is filled from the leader, never by initdb once the record runs (K15).
fn clone(case: &mut Case<'_>) {
    if case.view.promise.bootstrap == Bootstrap::Member {
        case.waiting("a human: the data directory of a recorded member is gone");
        return;
    }
    if !may_follow(case) {
        return;
    }
    match serving(case) {
        Some(from) => case.act_paced("clone", RETRY, Action::Clone { from }),
        None => case.waiting("a leader to clone from"),
    }
}

fn start(case: &mut Case<'_>, stopped: &Stopped) {
    case.memory.acting = None;
    if case.view.promise.bootstrap == Bootstrap::Unrecorded {
        // Lost the race of initdb; it has never served anybody.
        case.act_paced("wipe", RETRY, Action::WipeUnrecorded);
        return;
    }
    if case.view.promise.rewinding || is_orphan(case) {
        reclone(case);
        return;
    }
    if case.memory.diverged == Some(case.epoch()) && stopped.clean {
        rewind(case);
        return;
    }
    case.act_paced("start", RESTART, Action::StartStandby);
}

/// Rewound to the log of a leader that has been replaced before this copy was consistent: it may hold what the new
/// leader lacks and nobody can measure it, so it must never stream from that one (P12). It is no copy, as if the rewind
/// had not ended.
fn is_orphan(case: &Case<'_>) -> bool {
    case.view.promise.catching_up.is_some_and(|timeline| timeline < case.record().timeline)
}

/// A rewound directory that is not consistent yet streams from the leader that it was started with, and nobody can tell
/// it of another one: when that one's term has ended, it is stopped, to be started anew or rebuilt. Not at once: what it
/// needs may be here already.
fn outlived(case: &mut Case<'_>) {
    let promise = &case.view.promise;
    if promise.catching_up.is_none() || promise.last_epoch >= case.epoch() {
        return;
    }
    let since = case.memory.epoch_seen.map_or(case.now, |(_, at)| at);
    let due = since.after(case.view.settings.shrink_after * 3);
    if case.now < due {
        case.wake(due);
        return;
    }
    case.because(Reason::Superseded { epoch: case.epoch() });
    case.act(Action::Stop { mode: StopMode::Immediate });
}

/// Follows the leader when the own log goes on from its log; else detaches, measures, rewinds.
fn follow(case: &mut Case<'_>, standby: &Standby) {
    if !may_follow(case) {
        return;
    }
    let record = case.record();
    let Some(leader) = record.leader.as_ref() else { return };
    let serving = serving(case);
    if let Some(upstream) = &standby.upstream {
        let same_life = upstream.member == leader.member() && upstream.boot == leader.boot;
        if same_life && upstream.epoch == record.epoch {
            let moved = serving.filter(|serving| serving.address != upstream.address);
            if let Some(upstream) = moved {
                case.act(Action::Follow { upstream });
            }
            case.because(Reason::Following { leader: leader.member(), epoch: record.epoch });
            return;
        }
        // The same log goes on under a higher epoch: no fork in between.
        if upstream.member == leader.member() && standby.timeline == record.timeline {
            if let Some(upstream) = serving {
                case.act(Action::Follow { upstream });
            }
            return;
        }
        // Off the old stream: nothing of an earlier epoch is acknowledged any more, and the end can be found.
        case.act(Action::Seal { below: record.epoch });
        return;
    }
    let Some(upstream) = serving else {
        case.waiting("the recorded leader to serve");
        return;
    };
    if standby.timeline == record.timeline {
        case.act(Action::Follow { upstream });
        return;
    }
    let Some(end) = standby.end else {
        case.because(Reason::WaitingForEndOfLog);
        return;
    };
    match relation(record, end) {
        Relation::InLine => case.act(Action::Follow { upstream }),
        Relation::Ahead => case.waiting("a newer record: this log is on a later timeline"),
        Relation::Diverged => diverged(case, end),
    }
}

/// Before the epoch is committed those rewind without whom it cannot be, and one after the other, so that a leader
/// that dies meanwhile costs one copy; when they do not come either, others that can be added after.
fn first_to_rewind(case: &mut Case<'_>) -> bool {
    let needed = case.record().current_electorate().is_some_and(|newest| newest.members.contains(case.me()));
    let since = case.memory.epoch_seen.map_or(case.now, |(_, at)| at);
    let due = since.after(case.view.settings.shrink_after * 3);
    if !needed && case.now < due {
        case.wake(due);
        return false;
    }
    (needed || case.electable()) && case.fresh_peers().all(|said| said.condition != Condition::Cloning)
}

/// The leader's log may be rewound to: its epoch is committed and its control file shows the timeline (I12).
fn rewind_source(case: &mut Case<'_>) -> Option<Upstream> {
    let upstream = serving(case)?;
    if !case.memory.rules.rewind_after_commit {
        return Some(upstream);
    }
    let uncommitted = case.record().fence_xid.is_none();
    if uncommitted && !first_to_rewind(case) {
        return None;
    }
    let ready = case.leader_peer().is_some_and(|peer| peer.announcement.rewind_source);
    ready.then_some(upstream)
}

fn diverged(case: &mut Case<'_>, mine: Position) {
    case.because(Reason::Diverged { mine });
    if rewind_source(case).is_none() {
        case.waiting("the leader's epoch to be committed before rewinding to it");
        return;
    }
    case.memory.diverged = Some(case.epoch());
    case.act(Action::Stop { mode: StopMode::Fast });
}

fn rewind(case: &mut Case<'_>) {
    if !may_follow(case) {
        return;
    }
    match rewind_source(case) {
        Some(from) => {
            if case.memory.paced("rewind", case.now, RETRY) {
                // Whatever comes of it, the next start looks again; a failure leaves its mark on the promise.
                case.memory.diverged = None;
                case.act(Action::Rewind { from });
            } else {
                case.wake(case.now.after(RETRY));
            }
        }
        None => case.waiting("the leader's epoch to be committed before rewinding to it"),
    }
}

/// A half-rewound directory, or an orphan, is rebuilt only from a leader that serves, and while a third member holds the leader's log
/// too (S6). When none comes, from a leader whose epoch is committed: its log holds whatever was ever acknowledged, and
/// nobody could start the directory that goes. What an electorate rests on is safe meanwhile: this member reports
/// nothing before its new copy is consistent.
fn reclone(case: &mut Case<'_>) {
    if !may_follow(case) {
        return;
    }
    let leader = case.record().leader.as_ref().map(LeaderId::member);
    let third = leader.is_some() && case.fresh_peers().any(|said| said.streams_from == leader);
    let since = case.memory.epoch_seen.map_or(case.now, |(_, at)| at);
    let due = since.after(case.view.settings.shrink_after * 3);
    let alone = case.record().fence_xid.is_some() && case.now >= due;
    let fresh = case.snapshot.confirmed_at.is_some_and(|at| case.now.since(at) <= Duration::from_secs(30));
    if !(third || alone) || !fresh {
        if case.now < due {
            case.wake(due);
        }
        case.waiting("another good copy besides the leader's before a half-rewound one is rebuilt");
        return;
    }
    match rewind_source(case) {
        Some(from) => case.act_paced("reclone", RETRY, Action::Reclone { from }),
        None => case.waiting("a leader to rebuild from"),
    }
}
