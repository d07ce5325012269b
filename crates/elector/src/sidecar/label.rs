//! The duty of labelling the own pod with its role: for people and selectors, never what the election goes by.
//!
//! A label says `leader` only after the election was won, and is taken back before the Lease is released. A pod that dies
//! keeps its last label until it is gone: route by `--service` or by the answers, not by labels.

use std::time::Duration;

use kubernetes::{Calls, labels::Labelled, leader_election::label_pod};

use super::options::PodLabel;
use crate::elector::Handle;

/// Whose label.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Labels for ever.
pub async fn keep(calls: Calls, pod: Pod, label: PodLabel, elector: Handle, retry: Duration) {
    tokio::select! {
        () = set(&calls, &pod, &label, false, retry) => {}
        _ = elector.lead() => {}
    }
    loop {
        let mut lead = elector.lead().await;
        tokio::select! {
            () = set(&calls, &pod, &label, true, retry) => lead.lost().await,
            () = lead.lost() => {}
        }
        // Tried once while the Lease is still kept, then for as long as it takes.
        let bound = calls.bound();
        let done = tokio::time::timeout(bound, set(&calls, &pod, &label, false, retry)).await.is_ok();
        drop(lead);
        if !done {
            tokio::select! {
                () = set(&calls, &pod, &label, false, retry) => {}
                _ = elector.lead() => {}
            }
        }
    }
}

/// Until it is set.
async fn set(calls: &Calls, pod: &Pod, label: &PodLabel, leads: bool, retry: Duration) {
    let value = if leads { &label.leader } else { &label.follower };
    let mut told = false;
    loop {
        let set = label_pod(calls, &pod.namespace, &pod.name, &pod.uid, (&label.key, value)).await;
        match set {
            Ok(Labelled::Set) => return,
            Ok(Labelled::OtherPod) => {
                tracing::warn!(pod = %pod.name, uid = %pod.uid, "the pod of this name is another one: not labelled");
                return;
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(pod = %pod.name, label = %label.key, value, error = %error.told(), "the pod is not labelled yet");
            }
            Err(_) => {}
        }
        tokio::time::sleep(retry).await;
    }
}
