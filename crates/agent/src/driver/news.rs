//! Everything that can change between two turns: the loop waits for any of it.
//!
//! Must never miss a change: a receiver remembers what it has shown, so what comes while the loop works wakes it after.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use kubernetes::pods::PodFacts;
use kubernetes::watch::Seen;
use tokio::sync::watch;

use super::context::Context;
use super::files;
use super::members::Members;
use super::postgres_probe::{Look, Probe};
use super::record::{self, Keeper};
use crate::peers::Channel;
use crate::supervised::PostmasterState;

/// One receiver for each source.
pub(super) struct News {
    probe: watch::Receiver<Look>,
    record: watch::Receiver<record::State>,
    files: watch::Receiver<files::Known>,
    pods: watch::Receiver<BTreeMap<String, PodFacts>>,
    promise: watch::Receiver<ha::Promise>,
    processes: watch::Receiver<PostmasterState>,
    terminating: watch::Receiver<bool>,
    lease: watch::Receiver<Seen<Lease>>,
    keeper: Keeper,
}

impl News {
    /// From all sources.
    pub(super) fn of(
        context: &Context,
        probe: &Probe,
        members: &Members,
        lease: watch::Receiver<Seen<Lease>>,
    ) -> Self {
        Self {
            probe: probe.subscribe(),
            record: context.record.subscribe(),
            files: context.files.subscribe(),
            pods: members.subscribe(),
            promise: context.promise.subscribe(),
            processes: context.postmaster.state(),
            terminating: context.postmaster.terminating(),
            lease,
            keeper: context.record.clone(),
        }
    }

    /// Resolves when any of it has changed. A change of the Lease is only a reason to read the record.
    pub(super) async fn any(&mut self, channel: &Channel) {
        tokio::select! {
            Ok(()) = self.probe.changed() => {}
            Ok(()) = self.record.changed() => {}
            Ok(()) = self.files.changed() => {}
            Ok(()) = self.pods.changed() => {}
            Ok(()) = self.promise.changed() => {}
            Ok(()) = self.processes.changed() => {}
            Ok(()) = self.terminating.changed() => {}
            Ok(()) = self.lease.changed() => self.keeper.look(),
            () = channel.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// Resolves when the probe has looked at or after this instant.
    pub(super) async fn looked_since(&mut self, at: ha::Instant) {
        let _ = self.probe.wait_for(|look| look.looked_at >= at).await;
    }
}
