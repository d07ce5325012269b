//! Whether this member suspects the recorded leader, and whether enough others do (§4 steps 1 and 2).
//!
//! A suspicion costs nothing and promises nothing; it is said to the others and withdrawn with the next sign of
//! life. Only when the members that suspect or are already sealed could satisfy every electorate does anybody seal:
//! a member that is cut off alone never disturbs a healthy cluster (`a_lonely_suspicion_seals_nothing`).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::announcement::older_life_may_lead;
use crate::decision::Reason;
use crate::types::{Epoch, MemberId};
use crate::view::Postgres;

use super::case::Case;

/// How long a leader whose agent speaks may take until its Postgres is out of recovery, or to hand over.
pub(super) const PROMOTION: Duration = Duration::from_secs(10);

/// Why the recorded leader is suspected, if it is. Notes signs of life.
pub(super) fn suspicion(case: &mut Case<'_>) -> Option<Reason> {
    let (record, now) = (case.record(), case.now);
    let leader = record.leader.as_ref()?;
    if let Some(peer) = case.leader_peer() {
        let said = &peer.announcement;
        let current = said.record_epoch >= record.epoch;
        // A later life that knows this record and is not the recorded one: the recorded one has ended.
        if current && (said.released || said.boot != leader.boot) && case.fresh(peer) {
            return Some(Reason::LeaderReleased);
        }
        if peer.refused {
            return Some(Reason::LeaderSilent { millis: millis(now.since(peer.heard_at)) });
        }
        let excused =
            |since: Option<crate::types::Instant>| since.is_some_and(|at| now.since(at) < PROMOTION);
        let at_work = excused(case.memory.epoch_seen.map(|(_, at)| at))
            || (record.handover.is_some() && excused(case.memory.handover_since));
        let leads = said.leads.is_some_and(|epoch| epoch >= record.epoch);
        if said.boot == leader.boot && current && (leads || at_work) {
            case.memory.leader_at = case.memory.leader_at.max(Some(peer.heard_at));
        }
    }
    if let Postgres::Standby(standby) = &case.view.postgres {
        let from_leader = standby
            .upstream
            .as_ref()
            .is_some_and(|upstream| upstream.member == leader.member() && upstream.boot == leader.boot);
        if standby.received != case.memory.received {
            let news = standby.received > case.memory.received && case.memory.received.is_some();
            if from_leader && standby.streaming && news {
                case.memory.leader_at = Some(now);
            }
            case.memory.received = standby.received;
        }
    } else {
        case.memory.received = None;
    }
    let heard = case.memory.leader_at.unwrap_or(now);
    let silence = now.since(heard);
    if silence >= case.view.settings.detection {
        return Some(Reason::LeaderSilent { millis: millis(silence) });
    }
    case.wake(heard.after(case.view.settings.detection));
    None
}

/// Whether those who suspect this epoch's leader or are sealed above it, this member included, could elect.
pub(super) fn shared(case: &Case<'_>, epoch: Epoch) -> bool {
    if !case.memory.rules.pre_vote {
        return true;
    }
    let leader_boot = case.record().leader.as_ref().map(|leader| leader.boot);
    let mut ready: BTreeSet<MemberId> = BTreeSet::from([case.me().clone()]);
    let mut leader_counts = case.record().names(case.me()) && case.excludes_older_lives();
    let mut doubtful = BTreeSet::new();
    if older_life_may_lead(case.view) {
        doubtful.insert(case.me().clone());
    }
    for said in case.fresh_peers() {
        if said.suspects == Some(epoch) || said.sealed_below > epoch {
            let vouched = said.released && said.record_epoch >= epoch;
            leader_counts |= case.record().names(&said.member) && (vouched || Some(said.boot) == leader_boot);
            if said.older_life {
                doubtful.insert(said.member.clone());
            }
            ready.insert(said.member.clone());
        }
    }
    for (member, known) in &case.memory.reports {
        if known.report.sealed_below > epoch {
            leader_counts |= case.record().names(member) && known.of_recorded_life(case.record());
            if known.older_life {
                doubtful.insert(member.clone());
            }
            ready.insert(member.clone());
        }
    }
    if !case.memory.rules.doubt_older_lives {
        doubtful.clear();
    }
    case.satisfied(&ready, leader_counts, &doubtful)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
