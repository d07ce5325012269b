//! A planned change of leader, and the end of a leader's pod (§4 "planned switchover", K3, K16).
//!
//! Announced in the record, then a fast stop, a durable seal of its own, and a report whose position is the end of
//! the shutdown checkpoint: that alone satisfies the leader's electorates, so one standby that holds everything can
//! win at once. Without a successor in sight nobody is stopped for a wish; a terminating pod is stopped anyway.

use std::time::Duration;

use crate::decision::{Action, Purpose, Reason, StopMode};
use crate::record::{Handover, Record};
use crate::view::Primary;

use super::asynchronous;
use super::case::Case;

/// How long a successor may take before the old leader leads on.
pub(super) const BOUND: Duration = Duration::from_secs(10);
/// After a hand-over that came to nothing the next is tried then.
const AGAIN: Duration = Duration::from_secs(30);
/// How far behind a successor may be when the stop begins: the stop flushes the rest.
const NEAR: u64 = 16 << 20;

/// Whether somebody could take over at once: of the electorate, or anybody where a lease stands for it.
fn successor(case: &Case<'_>, primary: &Primary) -> bool {
    let Some(newest) = case.record().current_electorate() else { return false };
    let settings = &case.view.settings;
    case.fresh_peers().any(|said| {
        (newest.members.contains(&said.member) || asynchronous::is_async(case.record()))
            && !said.terminating
            && !settings.is_leaving(&said.member.name)
            && settings.electable.contains(&said.member.name)
            && said.sealed_below <= case.epoch()
            && primary.walsenders.get(&said.member.incarnation).is_some_and(|sender| {
                sender.streaming
                    && sender.flushed.is_some_and(|at| primary.flushed.0.saturating_sub(at.0) <= NEAR)
            })
    })
}

/// Begins to leave when that is wanted and possible; true when there is nothing else to do any more.
pub(super) fn on_the_way_out(case: &mut Case<'_>, primary: &Primary) -> bool {
    let view = case.view;
    let terminating = view.terminating;
    let announced = case.record().handover.is_some();
    if !(terminating || announced || view.settings.is_leaving(&case.me().name)) {
        case.memory.handover_since = None;
        return false;
    }
    let (now, failed) = (case.now, case.memory.handover_failed);
    if !terminating && failed.is_some_and(|at| now.since(at) < AGAIN) {
        if announced {
            call_off(case);
        }
        return false;
    }
    let since = *case.memory.handover_since.get_or_insert(now);
    let possible = successor(case, primary);
    if announced && (possible || terminating) {
        case.because(Reason::HandingOver);
        case.act(Action::Stop { mode: StopMode::Fast });
        return true;
    }
    if announced {
        if now.since(since) >= BOUND {
            case.memory.handover_failed = Some(now);
            call_off(case);
        } else {
            case.wake(since.after(BOUND));
            case.waiting("a successor that holds everything");
        }
        return false;
    }
    if possible {
        if case.may_swap() {
            case.because(Reason::HandingOver);
            let next = Record { handover: Some(Handover { to: None }), ..case.record().clone() };
            case.swap(next, Purpose::Handover);
        } else if terminating && now.since(since) >= BOUND {
            case.act(Action::Stop { mode: StopMode::Fast });
            return true;
        }
        return false;
    }
    if terminating {
        let nobody = view.settings.electable.iter().all(|name| *name == case.me().name)
            || case.fresh_peers().all(|said| said.terminating);
        if nobody || now.since(since) >= BOUND {
            case.act(Action::Retract);
            case.act(Action::Stop { mode: StopMode::Fast });
            return true;
        }
        case.wake(since.after(BOUND));
    }
    case.waiting("a successor that holds everything");
    false
}

fn call_off(case: &mut Case<'_>) {
    if case.may_swap() {
        let next = Record { handover: None, ..case.record().clone() };
        case.swap(next, Purpose::Handover);
    }
}
