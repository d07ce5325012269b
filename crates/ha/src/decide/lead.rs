//! The duties of a running leader, in the order in which they become due (§4 steps 8 and 9, §6).
//!
//! Nobody is served before w standbys of the newest electorate have flushed this start's first record, the names are
//! in force, and the next transaction id has been read (I13): `i13_*` in the tests. In steady state nothing is
//! written to the API server (L2).

use std::collections::BTreeSet;

use crate::decision::{Action, Purpose, Reason};
use crate::record::Record;
use crate::settings::{DurabilityMode, WhenShort};
use crate::types::MemberId;
use crate::view::{Gate, Primary, Route};

use super::case::{Case, names_for};
use super::{electorate_change, fence, force, handover};

/// The record names this life, and its Postgres is out of recovery on the recorded timeline.
pub(super) fn lead(case: &mut Case<'_>, primary: &Primary) {
    case.memory.won = None;
    case.memory.led = Some(case.epoch());
    case.memory.acting = None;
    case.memory.down_since = None;
    if fence::stopped_for_silence(case, primary) {
        return;
    }
    case.because(Reason::Leading { epoch: case.epoch() });
    electorate_change::observe(case, primary);
    if handover::on_the_way_out(case, primary) {
        return;
    }
    prepare(case, primary);
    names(case, primary);
    rewind_source(case, primary);
    serve(case, primary);
    raise_epoch_over_seals(case);
    force::refuse(case);
    electorate_change::step(case, primary);
}

/// Slots and roles for everybody who speaks, so that an empty volume can be cloned at once.
fn prepare(case: &mut Case<'_>, primary: &Primary) {
    let members: BTreeSet<MemberId> = case
        .view
        .peers
        .values()
        .map(|peer| peer.announcement.member.clone())
        .filter(|member| !primary.prepared.contains(&member.incarnation))
        .collect();
    if !members.is_empty() {
        case.act(Action::Prepare { members });
    }
}

/// The record is widened before the setting changes (I9): the setting follows the newest electorate of the record.
/// Only of a record that was read by this very agent: one kept from earlier may name an electorate that has been
/// left since, and its names would acknowledge what no election has to hear of.
fn names(case: &mut Case<'_>, primary: &Primary) {
    if case.snapshot.version.is_none() && case.memory.rules.names_of_read_record {
        return;
    }
    let Some(newest) = case.record().current_electorate() else { return };
    let names = names_for(newest);
    if primary.names != names {
        case.act(Action::SetNames { names });
    }
}

/// Whether others may rewind to this leader: once its epoch is committed (I12). Under `block` the electorate keeps
/// members that must rewind before they can flush anything; when the epoch cannot be committed without them, copies
/// are risked before the cluster stands still for good. Safety does not rest on I12.
fn rewind_source(case: &mut Case<'_>, primary: &Primary) {
    let committed = case.record().fence_xid.is_some();
    let since = case.memory.epoch_seen.map_or(case.now, |(_, at)| at);
    let due = since.after(case.view.settings.shrink_after);
    let stuck = case.view.settings.when_short == WhenShort::Block && case.now >= due;
    if !committed && !stuck {
        case.wake(due);
    }
    case.out.rewind_source =
        case.snapshot.version.is_some() && primary.timeline == case.record().timeline && (committed || stuck);
}

/// Gate and route.
fn serve(case: &mut Case<'_>, primary: &Primary) {
    let Some(newest) = case.record().current_electorate() else { return };
    let epoch = case.epoch();
    if primary.gate == Gate::Closed {
        if case.snapshot.version.is_none() {
            case.waiting("the record, before anybody is served");
            return;
        }
        if case.memory.rules.seal_binds_token && case.view.promise.sealed_below > epoch {
            case.waiting("an epoch that is not below this member's own seal");
            return;
        }
        let flushed = electorate_change::flushed(case, primary, primary.first_record);
        let quorum = newest.acknowledged_by(&flushed) || !case.memory.rules.gate_after_quorum;
        if !quorum {
            case.because(Reason::WaitingForQuorumFlush { flushed: flushed.len(), acks: newest.acks });
            return;
        }
        if primary.names != names_for(newest) {
            case.waiting("the names to be in force");
            return;
        }
        if !primary.provisioned {
            case.act(Action::Provision);
            return;
        }
        if primary.fence_xid.is_none() {
            case.waiting("the first transaction id of this term");
            return;
        }
        if short(case) {
            case.waiting("enough standbys to acknowledge, since writes block without them");
            return;
        }
        case.act(Action::OpenGate);
    }
    if case.view.route != (Route::Here { epoch }) {
        case.act(Action::Publish { epoch });
    }
}

/// Under `block` nobody is served by fewer standbys than asked for.
fn short(case: &Case<'_>) -> bool {
    let settings = &case.view.settings;
    let others = settings.electable.iter().filter(|name| **name != case.me().name).count();
    let floor = (settings.acks as usize).min(others);
    let acks = case.record().current_electorate().map_or(0, |newest| newest.acks as usize);
    settings.when_short == WhenShort::Block && settings.mode == DurabilityMode::Quorum && acks < floor
}

/// A member sealed above the epoch can follow again only under a higher one; for the same boot the swap is all it
/// needs (§4, last paragraphs of the steps).
fn raise_epoch_over_seals(case: &mut Case<'_>) {
    let sealed = case
        .fresh_peers()
        .map(|said| said.sealed_below)
        .chain([case.view.promise.sealed_below])
        .max()
        .unwrap_or_default();
    if sealed <= case.epoch() || !case.may_swap() {
        return;
    }
    let mut next = Record { epoch: sealed, ..case.record().clone() };
    next.remember_term(None);
    case.swap(next, Purpose::LeadOn);
}
