//! When a running leader must stop itself (§5, I14, I15).
//!
//! Safety never rests on it in quorum mode, where w members can no longer acknowledge to a deposed leader; it keeps
//! an old leader from being read for long. Losing the API server alone fences nothing, and a leader whose newest
//! electorate is empty is never fenced for silence: nobody else can be elected.

use crate::decision::{Action, Reason, StopMode};
use crate::types::{Incarnation, Instant};
use crate::view::{Names, Primary};

use std::collections::BTreeSet;

use super::asynchronous;
use super::case::Case;

/// Stops a leader without authority; true when it did.
pub(super) fn stopped_for_silence(case: &mut Case<'_>, primary: &Primary) -> bool {
    let now = case.now;
    let started = *case.memory.authority_at.get_or_insert(now);
    if !case.memory.rules.fencing {
        return false;
    }
    if asynchronous::is_async(case.record()) {
        let Some(at) = asynchronous::stop_at(case) else { return false };
        if now >= at {
            case.because(Reason::AuthorityLost { millis: 0 });
            case.act(Action::Stop { mode: StopMode::Immediate });
            return true;
        }
        case.wake(at);
        return false;
    }
    let Some(newest) = case.record().current_electorate() else { return false };
    if newest.members.is_empty() && !matches!(primary.names, Names::Quorum { .. }) {
        case.memory.authority_at = Some(now);
        return false;
    }
    let confirmed = confirmations(case, primary).max(case.snapshot.confirmed_at).max(Some(started));
    case.memory.authority_at = confirmed;
    let authority = confirmed.unwrap_or(started);
    let silence = now.since(authority);
    if silence >= case.view.settings.fence {
        case.because(Reason::AuthorityLost {
            millis: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX),
        });
        case.act(Action::Stop { mode: StopMode::Immediate });
        return true;
    }
    case.wake(authority.after(case.view.settings.fence));
    false
}

/// The newest instant at which w un-sealed members of the electorate in force are known to have heard this leader:
/// so many un-sealed ones leave too few seals for any election.
fn confirmations(case: &Case<'_>, primary: &Primary) -> Option<Instant> {
    let newest = case.record().current_electorate()?;
    let (members, acks): (BTreeSet<Incarnation>, u32) = match &primary.names {
        Names::Quorum { members, acks } => (members.clone(), *acks),
        _ => (newest.members.iter().map(|member| member.incarnation).collect(), newest.acks),
    };
    let mut confirmed: Vec<Instant> = case
        .view
        .peers
        .values()
        .filter(|peer| members.contains(&peer.announcement.member.incarnation))
        .filter(|peer| peer.announcement.sealed_below <= case.epoch())
        .filter_map(|peer| peer.confirmed_at)
        .collect();
    confirmed.sort_unstable_by(|one, other| other.cmp(one));
    confirmed.get((acks as usize).checked_sub(1)?).copied()
}
