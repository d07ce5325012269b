//! Events on the PostgresCluster, for people who run `kubectl describe`.
//!
//! Decides what is worth one: what an act changed, and what a user must mend. Never waits for one to be written.

use std::sync::Arc;

use api::PostgresCluster;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{PartialObjectMeta, PartialObjectMetaExt as _};
use kubernetes::Calls;
use kubernetes::events::{Events, Severity};

use crate::config::Config;

/// The name under which agents report.
const CONTROLLER: &str = "matriarch-agent";

/// Characters that an Event's note has room for.
const NOTE: usize = 1000;

/// Writes Events beside everything else.
#[derive(Clone)]
pub(crate) struct Tell {
    events: Arc<Events>,
    config: Config,
}

impl Tell {
    /// In the name of this pod.
    pub(crate) fn new(config: &Config, calls: Calls) -> Self {
        let events = Arc::new(Events::new(calls, CONTROLLER, &config.pod_name));
        Self { events, config: config.clone() }
    }

    /// An act on Postgres has ended well.
    pub(crate) fn done(&self, act: &'static str, cluster_uid: &str) {
        let (reason, note) = match act {
            "initialise" => ("Initialised", "made the first data directory"),
            "promote" => ("Promoted", "was promoted to master"),
            "start-primary" => ("Started", "started as master"),
            "clone" => ("Cloned", "copied the master's data"),
            "rewind" => ("Rewound", "rewound its data to the master's past and follows"),
            "reclone" => ("Rebuilt", "rebuilt its data from the master; the diverged WAL is kept aside"),
            "restart" => ("Restarted", "restarted PostgreSQL for parameters that waited for it"),
            _ => return,
        };
        self.event(cluster_uid, Severity::Normal, reason, act, format!("{} {note}", self.config.pod_name));
    }

    /// PostgreSQL does not take the newest parameters.
    pub(crate) fn parameters_refused(&self, cluster_uid: &str, why: &str) {
        let note = format!("{} keeps its last good parameters: {why}", self.config.pod_name);
        self.event(cluster_uid, Severity::Warning, "ParametersRefused", "configure", note);
    }

    /// Something that a user should know.
    pub(crate) fn found(&self, cluster_uid: &str, reason: &'static str, what: &str) {
        let note: String = format!("{}: {what}", self.config.pod_name).chars().take(NOTE).collect();
        self.event(cluster_uid, Severity::Warning, reason, "inspect", note);
    }

    fn event(&self, uid: &str, severity: Severity, reason: &'static str, action: &'static str, note: String) {
        let metadata = ObjectMeta {
            name: Some(self.config.cluster.clone()),
            namespace: Some(self.config.namespace.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        };
        let on: PartialObjectMeta<PostgresCluster> = metadata.into_request_partial();
        let events = Arc::clone(&self.events);
        tokio::spawn(async move { events.tell(&on, severity, reason, action, &note).await });
    }
}
