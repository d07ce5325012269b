//! The other members' pods: watched one by one by name (K17), for addresses, UIDs and labels.
//!
//! Decides whom the peer channel dials (K5: never DNS). Must never take a pod that ended for a place to dial, and
//! never forget a peer because the API server is silent: the last known address stays.

use std::collections::{BTreeMap, BTreeSet};

use ha::MemberName;
use k8s_openapi::api::core::v1::Pod;
use kubernetes::pods::PodFacts;
use kubernetes::watch::{Lookup, Watch};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::peers::Channel;

/// The running watches.
pub(crate) struct Members {
    client: kube::Client,
    namespace: String,
    channel: Channel,
    watched: BTreeMap<String, AbortHandle>,
    facts: watch::Sender<BTreeMap<String, PodFacts>>,
}

impl Members {
    /// Watches nobody yet.
    pub(crate) fn new(client: kube::Client, namespace: &str, channel: Channel) -> Self {
        let facts = watch::Sender::new(BTreeMap::new());
        Self { client, namespace: namespace.to_owned(), channel, watched: BTreeMap::new(), facts }
    }

    /// What is known of each pod, by name.
    pub(crate) fn facts(&self) -> BTreeMap<String, PodFacts> {
        self.facts.borrow().clone()
    }

    /// Reports changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<BTreeMap<String, PodFacts>> {
        self.facts.subscribe()
    }

    /// Watches exactly these pods from now on.
    pub(crate) fn watch_exactly(&mut self, pods: &BTreeSet<String>) {
        let before = self.watched.len();
        self.watched.retain(|name, task| {
            let kept = pods.contains(name);
            if !kept {
                task.abort();
            }
            kept
        });
        let mut changed = self.watched.len() != before;
        for name in pods {
            if self.watched.contains_key(name) {
                continue;
            }
            let watch = Watch::<Pod>::named(self.client.clone(), &self.namespace, name);
            let task = tokio::spawn(follow(watch, name.clone(), self.facts.clone()));
            self.watched.insert(name.clone(), task.abort_handle());
            changed = true;
        }
        if changed {
            self.facts.send_if_modified(|facts| {
                let before = facts.len();
                facts.retain(|name, _| pods.contains(name));
                facts.len() != before
            });
        }
    }

    /// Tells the channel whom to dial.
    pub(crate) fn dial(&self) {
        let peers = self
            .facts
            .borrow()
            .values()
            .filter(|pod| !pod.finished)
            .filter_map(|pod| Some((MemberName(pod.name.clone()), *pod.addresses.first()?)))
            .collect();
        self.channel.set_peers(peers);
    }
}

async fn follow(watch: Watch<Pod>, name: String, facts: watch::Sender<BTreeMap<String, PodFacts>>) {
    let mut seen = watch.subscribe();
    loop {
        let lookup = seen.borrow_and_update().lookup(&name);
        match lookup {
            Lookup::Known(pod) => {
                if let Some(pod) = PodFacts::of(&pod) {
                    facts.send_if_modified(|facts| {
                        facts.insert(name.clone(), pod.clone()).as_ref() != Some(&pod)
                    });
                }
            }
            Lookup::Missing => {
                facts.send_if_modified(|facts| facts.remove(&name).is_some());
            }
            Lookup::Unknown => {}
        }
        if seen.changed().await.is_err() {
            return;
        }
    }
}
