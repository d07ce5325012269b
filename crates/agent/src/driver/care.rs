//! What the record needs besides decisions: kept beside the promise, read often enough, renewed for people to see.
//!
//! Must never write while a swap is decided or under way, and never replace a newer kept record by an older one.

use std::time::Duration;

use ha::{Decision, Instant, Phase, Postgres, Record, RecordView, View};
use tokio::task::JoinHandle;

use super::context::Context;

/// How often the leader renews the Lease in quorum mode: a sign of life for people, not an authority.
const RENEW: Duration = Duration::from_secs(10);
/// How old the record may get: while this member leads or does not simply follow, and while all is well.
const READ_OFTEN: Duration = Duration::from_millis(900);
const READ_SELDOM: Duration = Duration::from_secs(10);

/// What is under way, and when it was done last.
#[derive(Debug, Default)]
pub(super) struct Care {
    renewed_at: Instant,
    keeping: Option<JoinHandle<()>>,
}

impl Care {
    /// All of it, as far as it is due.
    pub(super) fn take(
        &mut self,
        context: &Context,
        view: &View,
        decision: &Decision,
        swapping: bool,
        now: Instant,
    ) {
        pace_reads(context, view, decision);
        self.keep(context, view);
        self.renew(context, view, swapping, now);
    }

    /// The last record that was seen is kept beside the promise: a lost one is rebuilt from these (§2).
    fn keep(&mut self, context: &Context, view: &View) {
        let RecordView::Known { record, .. } = &view.record else { return };
        let kept = view.promise.last_record.as_ref();
        let newer = kept.is_none_or(|kept| record.supersedes(kept) && kept != record.as_ref());
        let idle = self.keeping.as_ref().is_none_or(JoinHandle::is_finished);
        if newer && idle && record.phase == Phase::Running {
            let (promise, record) = (context.promise.clone(), Record::clone(record));
            let (me, boot) = (view.member.clone(), view.boot);
            self.keeping = Some(tokio::spawn(async move {
                // A winner's own record may have been kept meanwhile.
                let kept = promise.update(move |promise| promise.keep(&record, &me, boot));
                if let Err(error) = kept.await {
                    tracing::warn!(error = format!("{error:#}"), "the record could not be kept");
                }
            }));
        }
    }

    /// The leader's sign of life in the Lease; never while a swap is decided or under way.
    fn renew(&mut self, context: &Context, view: &View, swapping: bool, now: Instant) {
        let RecordView::Known { record, .. } = &view.record else { return };
        let due = now.since(self.renewed_at) >= RENEW && record.lease_millis.is_none();
        let leads = matches!(view.route, ha::Route::Here { epoch } if epoch == record.epoch)
            && matches!(view.postgres, Postgres::Primary(_));
        if due && leads && !swapping {
            self.renewed_at = now;
            let keeper = context.record.clone();
            tokio::spawn(async move { keeper.renew().await });
        }
    }
}

/// The record is read seldom while all is well, and often when this member leads or something is uncertain.
fn pace_reads(context: &Context, view: &View, decision: &Decision) {
    let follows = match (&view.record, &view.postgres) {
        (RecordView::Known { record, .. }, Postgres::Standby(standby)) => {
            standby.streaming
                && standby.upstream.as_ref().is_some_and(|upstream| record.names(&upstream.member))
                && decision.suspects.is_none()
        }
        _ => false,
    };
    let fence = view.settings.fence / 3;
    context.record.read_every(if follows { READ_SELDOM } else { READ_OFTEN.min(fence) });
    let RecordView::Known { record, .. } = &view.record else { return };
    let newer = |said: &ha::Announcement| {
        let seen = (said.record_epoch, said.record_generation);
        seen > (record.epoch, record.generation)
    };
    if view.peers.values().any(|peer| newer(&peer.announcement)) {
        context.record.look();
    }
}
