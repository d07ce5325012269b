//! The last change of master, as the new one saw it: `status.lastFailover`.
//!
//! Decides from when the former master counts as lost (its last sign of life, its own word that its Postgres is gone,
//! or the announcement of a hand-over), until when (the gate is open), and what was lost: nothing in quorum mode; in
//! asynchronous mode, and when a human forced a promotion, what the former master had said to have flushed, or later
//! shows to have flushed, beyond the fork.
//! Must never invent a number: what this agent did not see is left out. Proved by the tests below.

use std::time::Duration;

use api::LastFailover;
use ha::{
    DataLoss, Decision, Epoch, Gate, Instant, Lsn, MemberId, Postgres, Reason, Record, RecordView, Timeline,
    View,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Watches masters come and go.
#[derive(Debug, Default)]
pub(crate) struct Failovers {
    former: Option<Former>,
    seen: Option<Seen>,
}

/// The leader that is not this member, for as long as the record names it.
#[derive(Debug)]
struct Former {
    member: MemberId,
    epoch: Epoch,
    asynchronous: bool,
    flushed: Option<Lsn>,
    lost: Option<(Instant, Cause)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Planned,
    Released,
    Silent,
}

impl Cause {
    fn text(self) -> &'static str {
        match self {
            Self::Planned => "planned hand-over",
            Self::Released => "the master's PostgreSQL had ended",
            Self::Silent => "the master was not heard any more",
        }
    }
}

/// A change of master that ended here.
#[derive(Debug)]
struct Seen {
    told: LastFailover,
    from: MemberId,
    /// When something may have been lost: where this master's timeline left which one.
    fork: Option<(Timeline, Lsn)>,
}

impl Failovers {
    /// The change that made this member the master, when this agent saw it.
    pub(crate) fn last(&self) -> Option<&LastFailover> {
        self.seen.as_ref().map(|seen| &seen.told)
    }

    /// To be called at every turn. `at`: the wall clock, for people.
    pub(crate) fn observe(&mut self, view: &View, decision: &Decision, now: Instant, at: Time) {
        let RecordView::Known { record, .. } = &view.record else { return };
        let Some(leader) = &record.leader else { return };
        if leader.member() != view.member {
            self.seen = None;
            self.follow(leader.member(), record, view, decision, now);
            return;
        }
        if leader.boot == view.boot
            && let Postgres::Primary(primary) = &view.postgres
            && primary.gate == Gate::Open
        {
            if let Some(former) = self.former.take() {
                self.seen = Some(seen(former, record, view, now, at));
            }
            self.lost_later(view);
        }
    }

    fn follow(&mut self, member: MemberId, record: &Record, view: &View, decision: &Decision, now: Instant) {
        if self.former.as_ref().is_none_or(|old| old.member != member || old.epoch != record.epoch) {
            self.former = Some(Former {
                member,
                epoch: record.epoch,
                asynchronous: record.lease_millis.is_some(),
                flushed: None,
                lost: None,
            });
        }
        let Some(former) = &mut self.former else { return };
        if let Some(peer) = view.peers.get(&former.member.name)
            && peer.announcement.member == former.member
            && peer.announcement.leads == Some(record.epoch)
        {
            former.flushed = former.flushed.max(peer.announcement.flushed);
        }
        let planned = record.handover.is_some();
        let suspects = decision.suspects.is_some() || view.promise.sealed_below > record.epoch;
        if !planned && !suspects {
            former.lost = None;
        } else if former.lost.is_none() {
            former.lost = Some(if planned { (now, Cause::Planned) } else { cause(decision, now) });
        }
    }

    /// The former master is back and shows a longer log of its own than it had told.
    fn lost_later(&mut self, view: &View) {
        let Some(Seen { told, from, fork: Some((timeline, fork)) }) = &mut self.seen else { return };
        let Some(peer) = view.peers.get(&from.name).map(|peer| &peer.announcement) else { return };
        if peer.member == *from
            && peer.timeline == Some(*timeline)
            && let Some(flushed) = peer.flushed
        {
            told.lost_bytes = told.lost_bytes.max(Some(bytes(flushed, *fork)));
        }
    }
}

fn cause(decision: &Decision, now: Instant) -> (Instant, Cause) {
    for reason in &decision.because {
        match reason {
            Reason::LeaderReleased => return (now, Cause::Released),
            Reason::LeaderSilent { millis } => {
                let silence = Duration::from_millis(*millis).as_nanos();
                let silence = u64::try_from(silence).unwrap_or(u64::MAX);
                return (Instant(now.0.saturating_sub(silence)), Cause::Silent);
            }
            _ => {}
        }
    }
    (now, Cause::Silent)
}

fn seen(former: Former, record: &Record, view: &View, now: Instant, at: Time) -> Seen {
    let parent =
        record.history.iter().rev().find(|entry| entry.timeline == record.timeline && entry.parent.is_some());
    let forced = forced(record);
    let lossy = former.asynchronous || forced.is_some();
    let fork = parent.and_then(|entry| entry.parent).zip(record.fork_lsn).filter(|_| lossy);
    let lost_bytes = match (lossy, fork, former.flushed) {
        (false, ..) => Some(0),
        (true, Some((_, fork)), Some(flushed)) => Some(bytes(flushed, fork)),
        _ => None,
    };
    let known = forced.and_then(|loss| loss.known_bytes).and_then(|bytes| i64::try_from(bytes).ok());
    let lost_bytes = lost_bytes.max(known);
    let reason = match forced {
        Some(_) => "a human forced it, whatever was lost by it",
        None => former.lost.map_or("elected", |(_, cause)| cause.text()),
    };
    let told = LastFailover {
        from: Some(former.member.name.0.clone()),
        to: view.member.name.0.clone(),
        reason: reason.to_owned(),
        at,
        duration_ms: former.lost.and_then(|(since, _)| i64::try_from(now.since(since).as_millis()).ok()),
        lost_bytes,
    };
    tracing::info!(
        from = told.from,
        reason = told.reason,
        millis = told.duration_ms,
        lost_bytes = told.lost_bytes,
        "took over"
    );
    Seen { told, from: former.member, fork }
}

/// The forced promotion that the present timeline began with, if it did.
fn forced(record: &Record) -> Option<&DataLoss> {
    record.data_loss.as_ref().filter(|loss| {
        record.history.iter().any(|term| term.epoch == loss.epoch && term.timeline == record.timeline)
    })
}

fn bytes(flushed: Lsn, fork: Lsn) -> i64 {
    i64::try_from(flushed.0.saturating_sub(fork.0)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
