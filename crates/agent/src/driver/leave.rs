//! When a member that is being terminated may go.
//!
//! Must never go while Postgres runs or while clients are led here, nor before the others had time to hear how far its
//! log reaches: they cannot elect without it when it held the only copy. Never stays for longer than [`LINGER`] then.

use std::time::Duration;

use ha::{Instant, Postgres, RecordView, View};

/// How long a member that was led to stays after the route has moved: a node's proxy takes up to a second, and an
/// address that refuses is tried again at once, one that is gone after a second or more (K4).
const PROXIES: Duration = Duration::from_secs(2);
/// How long a member that is being terminated stays to report how far its log reaches, once Postgres is stopped.
const LINGER: Duration = Duration::from_secs(15);

/// Since when nothing runs, and when clients were last led here.
#[derive(Debug, Default)]
pub(super) struct Leave {
    stopped_since: Option<Instant>,
    routed_at: Option<Instant>,
}

impl Leave {
    /// Follows the route.
    pub(super) fn observe(&mut self, view: &View, now: Instant) {
        if matches!(view.route, ha::Route::Here { .. }) {
            self.routed_at = Some(now);
        }
    }

    /// Whether it may go. `busy`: an act, a swap or a call is under way.
    pub(super) fn may_go(&mut self, view: &View, busy: bool, now: Instant) -> bool {
        let down = matches!(view.postgres, Postgres::Absent | Postgres::Stopped(_));
        if !down || busy {
            self.stopped_since = None;
            return false;
        }
        let since = *self.stopped_since.get_or_insert(now);
        let lingered = now.since(since) >= LINGER;
        let leader = match &view.record {
            RecordView::Known { record, .. } => record.leader.as_ref(),
            _ => None,
        };
        let leads = leader.is_some_and(|leader| {
            leader.member() == view.member && leader.boot == view.boot && !leader.stopped
        });
        let another = leader.is_some_and(|leader| leader.member() != view.member);
        let left = |at: Instant| another && now.since(at) < PROXIES;
        let routed = matches!(view.route, ha::Route::Here { .. }) || self.routed_at.is_some_and(left);
        lingered || !(routed || leads)
    }
}
