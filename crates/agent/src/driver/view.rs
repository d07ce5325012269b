//! Everything this agent knows, gathered in one place for one decision.
//!
//! Must never invent: what was not observed stays unknown. Takes no time: every part was observed by a task of its
//! own and is only copied here.

use std::collections::BTreeSet;
use std::time::Duration;

use api::{DurabilityMode, MemberSettings, WhenShort};
use ha::{MemberName, Postgres, Route, Settings, View};

use crate::driver::context::Context;

/// Asynchronous mode: how long a renewal gives authority (§1).
const LEASE: Duration = Duration::from_secs(15);

/// What only the loop knows.
pub(crate) struct Surroundings {
    /// What the probe last said.
    pub(crate) postgres: Postgres,
    /// Where `pgwrite` points.
    pub(crate) route: Route,
    /// A swap is under way.
    pub(crate) swapping: bool,
    /// Our pod is being terminated.
    pub(crate) terminating: bool,
}

/// The view; none as long as the cluster's settings were never read, because nothing may be decided without them.
pub(crate) fn view(context: &Context, around: Surroundings) -> Option<View> {
    let settings = context.files.get().settings?;
    Some(View {
        member: context.member(),
        pod_uid: context.config.pod_uid.clone(),
        boot: context.postmaster.boot(),
        node: context.config.node_name.clone(),
        holds_volume_lock: context.postmaster.holds_lock(),
        terminating: around.terminating,
        settings: self::settings(&settings),
        record: context.record.get().view().clone(),
        promise: context.promise.get(),
        postgres: around.postgres,
        peers: context.channel.heard(),
        route: around.route,
        swapping: around.swapping,
    })
}

/// The part of the wishes that the protocol knows.
pub(crate) fn settings(wanted: &MemberSettings) -> Settings {
    let electable: BTreeSet<MemberName> = wanted
        .members
        .iter()
        .filter(|(_, plan)| plan.electable)
        .map(|(name, _)| MemberName(name.clone()))
        .collect();
    Settings {
        mode: match wanted.durability.mode {
            DurabilityMode::Quorum => ha::DurabilityMode::Quorum,
            DurabilityMode::Async => ha::DurabilityMode::Async,
        },
        acks: wanted.durability.acks,
        when_short: match wanted.durability.when_short {
            WhenShort::Continue => ha::WhenShort::Continue,
            WhenShort::Block => ha::WhenShort::Block,
        },
        max_lag_bytes: wanted.durability.max_lag_bytes,
        detection: Duration::from_millis(wanted.failover.detection_ms),
        fence: Duration::from_millis(wanted.failover.fence_ms),
        shrink_after: Duration::from_millis(wanted.failover.shrink_after_ms),
        lease: LEASE,
        priorities: wanted
            .members
            .iter()
            .map(|(name, plan)| (MemberName(name.clone()), plan.priority))
            .collect(),
        electable,
        leaving: wanted.handover_away.iter().map(|name| MemberName(name.clone())).collect(),
        paused: wanted.paused,
        forced: wanted.promote.as_ref().map(|promote| ha::Forced {
            member: MemberName(promote.member.clone()),
            epoch: ha::Epoch(promote.epoch),
        }),
    }
}
