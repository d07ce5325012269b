//! The member that the record names: leading, on its way to lead, or coming back (§4 "every start as master").
//!
//! It starts as master only with the proof of a swap that was just won and with the recorded timeline in its control
//! file. It raises the epoch by itself only when no older process of its volume can still lead; in every other case
//! it is a standby that needs a full election, under a new timeline.

use std::time::Duration;

use crate::decision::{Action, Purpose, Reason, StopMode, Swap};
use crate::promise::Bootstrap;
use crate::record::{LeaderId, Record};
use crate::types::MemberId;
use crate::view::{Postgres, Standby, Stopped};

use super::asynchronous;
use super::campaign;
use super::case::{Case, names_for};
use super::follow::RESTART;
use super::handover;
use super::lead;
use super::suspect::PROMOTION;

/// How long the standbys of a crashed leader may take to elect one of them, before it starts again itself.
const GRACE: Duration = Duration::from_secs(1);
/// The same when enough of them are sealed already.
const ELECTION: Duration = Duration::from_secs(3);

pub(super) fn recorded(case: &mut Case<'_>) {
    let view = case.view;
    if !matches!(view.postgres, Postgres::Primary(_)) {
        case.memory.names_in_force = None;
        case.memory.gate_opened = false;
        case.memory.standbys.clear();
    }
    match &view.postgres {
        Postgres::Primary(primary) => {
            let leads = case.names_this_life()
                && primary.timeline == case.record().timeline
                && case.record().leader.as_ref().is_some_and(|leader| !leader.stopped);
            if leads {
                lead::lead(case, primary);
            } else {
                case.because(Reason::Superseded { epoch: case.epoch() });
                case.act(Action::Stop { mode: StopMode::Immediate });
            }
        }
        Postgres::Unknown { why } => case.waiting(format!("a Postgres that answers: {why}")),
        Postgres::Busy { with } => case.waiting(format!("the end of {with}")),
        Postgres::Starting => case.waiting("recovery"),
        Postgres::Absent => case.waiting("a human: the recorded leader's data directory is gone"),
        Postgres::Stopped(stopped) => down(case, stopped),
        Postgres::Standby(standby) => in_recovery(case, standby),
    }
}

/// A won swap of this life for the record's epoch, which this member has not sealed itself against since: when the
/// answer to a won swap comes late, it may have reported for the next election meanwhile, and a report binds (I2). Nor
/// is a swap of a term that was led already, such as a renewal, the proof of a new one: since its Postgres is gone this
/// member has told the others to elect.
fn holds_token(case: &Case<'_>) -> bool {
    let bound = !case.memory.rules.seal_binds_token || case.view.promise.sealed_below <= case.epoch();
    let fresh = case.memory.led < Some(case.epoch()) || !case.memory.rules.start_once;
    case.names_this_life()
        && bound
        && fresh
        && case.memory.won.as_ref().is_some_and(|token| token.epoch() == case.epoch())
}

fn down(case: &mut Case<'_>, stopped: &Stopped) {
    let (view, now, record) = (case.view, case.now, case.record());
    let since = *case.memory.down_since.get_or_insert(now);
    case.memory.acting = None;
    let completed = stopped.timeline == record.timeline
        && !view.promise.rewinding
        && view.promise.bootstrap != Bootstrap::Empty;
    if holds_token(case) && completed && !view.terminating {
        if asynchronous::is_over(case) {
            // The answer took so long that it would have to stop at once.
            raise(case);
        } else {
            start_primary(case);
        }
        return;
    }
    if !case.memory.rules.start_as_standby && completed && case.names_this_life() {
        mutant_start(case);
        return;
    }
    if view.promise.last_epoch > record.epoch {
        case.waiting("a record that is not older than what was led before");
        return;
    }
    let leaving = view.terminating || record.handover.is_some();
    // A clean stop that is no farewell is a restart, for parameters or by hand: nobody need elect, it takes a moment.
    let restarting = !leaving && stopped.clean && stopped.end.is_some() && case.names_this_life();
    case.out.released = case.excludes_older_lives() && !restarting;
    if leaving && stopped.clean && stopped.end.is_some() && case.excludes_older_lives() {
        if view.promise.sealed_below <= record.epoch {
            case.act(Action::Seal { below: record.epoch.next() });
            return;
        }
        case.because(Reason::HandingOver);
        if view.terminating {
            say_stopped(case, since);
        } else if now.since(since) >= handover::BOUND {
            case.memory.handover_failed = Some(now);
            raise(case);
        } else {
            case.wake(since.after(handover::BOUND));
        }
        return;
    }
    if view.terminating {
        case.waiting("the end of the pod");
        return;
    }
    if !completed || !case.excludes_older_lives() {
        if view.promise.rewinding {
            case.waiting("a human: a half-rewound directory is the recorded leader's");
        } else {
            // A half-done promotion, or an older process may still run: only an election, as a standby.
            case.act_paced("start", RESTART, Action::StartStandby);
        }
        return;
    }
    let due = if restarting { now } else { since.after(grace(case)) };
    if now >= due {
        raise(case);
    } else {
        case.wake(due);
        case.waiting("the standbys, which may elect one of them");
    }
}

/// How long the others have, by what they could do.
fn grace(case: &Case<'_>) -> Duration {
    let record = case.record();
    if record.current_electorate().is_none_or(|newest| newest.members.is_empty()) {
        return Duration::ZERO;
    }
    let sealed = case
        .fresh_peers()
        .filter(|said| said.sealed_below > record.epoch)
        .map(|said| said.member.clone())
        .collect::<std::collections::BTreeSet<MemberId>>();
    if case.satisfied(&sealed, false, &std::collections::BTreeSet::new()) { ELECTION } else { GRACE }
}

/// Raises the epoch on the same timeline; what was acknowledged is all in this log (§4).
fn raise(case: &mut Case<'_>) {
    let sealed = case.fresh_peers().map(|said| said.sealed_below).max().unwrap_or_default();
    let epoch = case.epoch().next().max(case.view.promise.sealed_below).max(sealed);
    let mut next = Record {
        epoch,
        leader: Some(case.this_life()),
        handover: None,
        fence_xid: None,
        ..case.record().clone()
    };
    next.remember_term(None);
    case.swap(next, Purpose::LeadOn);
}

fn start_primary(case: &mut Case<'_>) {
    let Some(fence) = case.memory.won.take() else { return };
    let Some(newest) = case.record().current_electorate() else { return };
    case.memory.acting = Some((case.epoch(), case.now));
    case.memory.authority_at = Some(case.now);
    let names = names_for(newest);
    case.act(Action::StartPrimary { fence, names });
}

/// Only in mutation tests: starts as master on the strength of a record that it merely read.
fn mutant_start(case: &mut Case<'_>) {
    let (Some(version), Some(newest)) = (case.snapshot.version, case.record().current_electorate()) else {
        return;
    };
    let read =
        Swap { expect: version.clone(), record: Box::new(case.record().clone()), purpose: Purpose::LeadOn };
    case.memory.authority_at = Some(case.now);
    let names = names_for(newest);
    case.act(Action::StartPrimary { fence: read.won(version.clone()), names });
}

/// The last act of a leader that ends without a successor: a later life may lead on wherever the volume goes.
fn say_stopped(case: &mut Case<'_>, since: crate::types::Instant) {
    let said = case.record().leader.as_ref().is_none_or(|leader| leader.stopped);
    let alone = case.record().current_electorate().is_none_or(|newest| newest.members.is_empty());
    let due = since.after(if alone { Duration::ZERO } else { ELECTION });
    if said || !case.names_this_life() {
        case.waiting("the end of the pod");
    } else if case.now >= due && case.may_swap() {
        let leader = case.record().leader.clone().map(|leader| LeaderId { stopped: true, ..leader });
        let next = Record { leader, ..case.record().clone() };
        case.swap(next, Purpose::Handover);
    } else {
        case.wake(due);
    }
}

fn in_recovery(case: &mut Case<'_>, standby: &Standby) {
    let (view, now, record) = (case.view, case.now, case.record());
    if view.terminating {
        case.out.released = case.excludes_older_lives();
        case.act(Action::Stop { mode: StopMode::Fast });
        return;
    }
    if holds_token(case) {
        promote(case, standby);
        return;
    }
    if let Some((epoch, at)) = case.memory.acting
        && epoch == record.epoch
        && now.since(at) < PROMOTION
    {
        case.wake(at.after(PROMOTION));
        case.waiting("the promotion");
        return;
    }
    case.memory.acting = None;
    case.memory.down_since.get_or_insert(now);
    case.out.released = case.excludes_older_lives();
    let why = Reason::Waiting { what: "an election: recorded, but without proof of a fresh win".to_owned() };
    campaign::campaign(case, standby, Some(why));
}

/// The win is promoted from exactly where it was won, once (§4 steps 6 and 7).
fn promote(case: &mut Case<'_>, standby: &Standby) {
    let record = case.record();
    if standby.upstream.is_some() || standby.streaming {
        case.memory.won = None;
        case.waiting("an election: the stream was opened again after the win");
        return;
    }
    let Some(end) = standby.end else {
        case.because(Reason::WaitingForEndOfLog);
        return;
    };
    if record.fork_lsn != Some(end.lsn) || end.timeline >= record.timeline {
        case.memory.won = None;
        case.waiting("an election: the log does not end where it was won");
        return;
    }
    let (Some(fence), Some(newest)) = (case.memory.won.take(), record.current_electorate()) else { return };
    case.memory.acting = Some((record.epoch, case.now));
    case.memory.authority_at = Some(case.now);
    let names = names_for(newest);
    case.act(Action::Promote { fence, timeline: record.timeline, names });
}
