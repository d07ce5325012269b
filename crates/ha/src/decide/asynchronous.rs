//! Asynchronous mode (§1.2, §5): time and the lease in the record instead of a quorum.
//!
//! The leader's authority ends before any observer may think so: it counts from before its own last write was sent and
//! stops at nine tenths of the lease, an observer counts from when it saw the renewal and waits for five quarters,
//! which covers clocks that run ten per cent apart in either direction. An agent that has forgotten when it wrote has
//! no authority until it has written again: what it reads may be as old as the lease.

use std::time::Duration;

use crate::decision::{Purpose, Reason};
use crate::record::Record;
use crate::settings::DurabilityMode;
use crate::types::{Instant, Position};
use crate::view::RecordView;

use super::case::Case;

/// Whether this term's authority is a lease.
pub(super) fn is_async(record: &Record) -> bool {
    record.lease_millis.is_some()
}

/// What a new term's record says about the lease.
pub(super) fn lease_millis(case: &Case<'_>) -> Option<u64> {
    let settings = &case.view.settings;
    (settings.mode == DurabilityMode::Async)
        .then(|| u64::try_from(settings.lease.as_millis()).unwrap_or(u64::MAX).max(15_000))
}

/// Whether the lease of this term has surely ended for its holder; true in quorum mode, where no time is needed.
pub(super) fn may_elect(case: &mut Case<'_>) -> bool {
    let Some(millis) = case.record().lease_millis else { return true };
    let leader_boot = case.record().leader.as_ref().map(|leader| leader.boot);
    let released = case.leader_peer().is_some_and(|peer| {
        let said = &peer.announcement;
        said.released && Some(said.boot) == leader_boot && said.record_epoch >= case.epoch()
    });
    if released || (case.record().names(case.me()) && case.excludes_older_lives()) {
        return true;
    }
    let RecordView::Known { changed_at, .. } = &case.view.record else { return false };
    let over = changed_at.after(Duration::from_millis(millis.saturating_mul(5) / 4));
    if case.now >= over {
        return true;
    }
    case.wake(over);
    case.waiting("the lease of the recorded leader to end");
    false
}

/// Whether a candidate at this position is within the lag that the user allows.
pub(super) fn elects(case: &Case<'_>, position: Position) -> bool {
    match case.memory.leader_flushed {
        Some((epoch, flushed)) if epoch == case.epoch() => {
            flushed.0.saturating_sub(position.lsn.0) <= case.view.settings.max_lag_bytes
        }
        _ => true,
    }
}

/// Only without a rule does what is read give authority; with all of them, the driver's word of a win does
/// ([`crate::Memory::won`]).
pub(super) fn observe(case: &mut Case<'_>) {
    let (Some(version), rules) = (case.snapshot.version, &case.memory.rules) else { return };
    let forgotten = case.memory.lease_from.is_none() && !rules.own_lease;
    let news = case.memory.lease_from.as_ref().is_none_or(|(known, _)| known != version);
    if forgotten || (news && !rules.deadline_before_request) {
        case.memory.lease_from = Some((version.clone(), case.now));
    }
}

/// The instant at which a leader must stop, unless it renews before.
pub(super) fn stop_at(case: &Case<'_>) -> Option<Instant> {
    let millis = case.record().lease_millis?;
    let from = case.memory.lease_from.as_ref().map_or(Instant(0), |(_, at)| *at);
    Some(from.after(Duration::from_millis(millis.saturating_mul(9) / 10)))
}

/// Whether this term's lease is over before its leader could start.
pub(super) fn is_over(case: &Case<'_>) -> bool {
    stop_at(case).is_some_and(|at| case.now >= at)
}

/// Renews the lease every third of it.
pub(super) fn renew(case: &mut Case<'_>) {
    let Some(millis) = case.record().lease_millis else { return };
    let Some((_, from)) = case.memory.lease_from.clone() else { return };
    let due = from.after(Duration::from_millis(millis / 3));
    if case.now < due {
        case.wake(due);
        return;
    }
    if case.may_swap() {
        case.because(Reason::Waiting { what: "the lease to be renewed".to_owned() });
        let same = case.record().clone();
        case.swap(same, Purpose::Renew);
    }
}
