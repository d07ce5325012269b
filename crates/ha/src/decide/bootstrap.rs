//! The first leader of a cluster that has never had data (K15).
//!
//! Only a record that the controller made `uninitialised` allows initdb, only on a volume that never had data, and
//! only by an electable member. Racing is safe: one compare-and-swap wins, the loser's directory has never served.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::announcement::Condition;
use crate::decision::{Action, Purpose, Reason, StopMode};
use crate::electorate::Electorate;
use crate::promise::Bootstrap;
use crate::record::{Phase, Record};
use crate::types::Epoch;
use crate::view::Postgres;

use super::asynchronous;
use super::case::Case;

/// By how much each electable member lets the one before it in ordinal initialise.
const STAGGER: Duration = Duration::from_secs(5);

pub(super) fn uninitialised(case: &mut Case<'_>) {
    let view = case.view;
    if let Postgres::Primary(_) = view.postgres {
        case.act(Action::Stop { mode: StopMode::Immediate });
    }
    if view.promise.bootstrap == Bootstrap::Member && case.memory.rules.initialise_only_uninitialised {
        case.because(Reason::RecordTampered {
            why: "it says that the cluster never had data, and this volume holds a member's: nobody leads"
                .into(),
        });
        return;
    }
    if view.terminating || !case.electable() {
        return;
    }
    let since = *case.memory.uninitialised_since.get_or_insert(case.now);
    match &view.postgres {
        Postgres::Absent => {
            if case.fresh_peers().any(|said| {
                said.record_epoch > Epoch(0)
                    || matches!(said.condition, Condition::Standby | Condition::Promoted | Condition::Leading)
            }) {
                case.waiting("a look at the record: another member has data");
                return;
            }
            let before = view
                .settings
                .electable
                .iter()
                .filter(|name| (name.ordinal(), *name) < (case.me().name.ordinal(), &case.me().name));
            let due = since.after(STAGGER * u32::try_from(before.count()).unwrap_or(u32::MAX));
            if case.now >= due {
                case.act(Action::Initialise);
            } else {
                case.wake(due);
                case.waiting("a member of a lower ordinal to initialise the cluster");
            }
        }
        Postgres::Stopped(stopped) => {
            let record = case.record();
            let epoch = record.epoch.next().max(view.promise.sealed_below);
            let mut first = Record {
                phase: Phase::Running,
                system_identifier: view.promise.system_identifier,
                epoch,
                leader: Some(case.this_life()),
                timeline: stopped.timeline,
                fork_lsn: None,
                electorates: vec![Electorate::new(case.me().clone(), BTreeSet::new(), 0)],
                handover: None,
                fence_xid: None,
                lease_millis: asynchronous::lease_millis(case),
                ..record.clone()
            };
            first.lease_uid = match &view.record {
                crate::view::RecordView::Known { lease_uid, .. } => Some(lease_uid.clone()),
                _ => first.lease_uid,
            };
            first.remember_term(None);
            case.swap(first, Purpose::Bootstrap);
        }
        Postgres::Busy { with } => case.waiting(format!("the end of {with}")),
        _ => case.waiting("a data directory at rest"),
    }
}
