//! Where a fault strikes: the master's pod, and how its parts are called in whatever runs there.

use anyhow::{Context, Result};
use api::names::{self, paths};

use crate::cluster::Cluster;
use crate::seen::Member;

/// The master, as faults need to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Victim {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its pod.
    pub(crate) pod: String,
    /// Its node.
    pub(crate) node: String,
    /// The container with PostgreSQL.
    pub(crate) container: String,
    /// That container's identifier with the runtime.
    pub(crate) container_id: String,
    /// PGDATA inside of it.
    pub(crate) pgdata: String,
    /// What decides on roles: a shell's pattern of its command line, arguments joined by blanks.
    pub(crate) agent: String,
    /// PID 1, in the same way.
    pub(crate) supervisor: String,
    /// Who looks after it from outside, where there is somebody.
    pub(crate) controller: Option<Controller>,
}

/// A controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Controller {
    /// Namespace of its Deployment.
    pub(crate) namespace: String,
    /// Its Deployment.
    pub(crate) name: String,
    /// File name of its program.
    pub(crate) program: String,
}

impl Victim {
    /// A member of one of our own clusters, with the operator where the chart puts it on the rig.
    pub(crate) fn of(cluster: &Cluster, member: &Member) -> Result<Self> {
        Ok(Self {
            namespace: cluster.namespace.clone(),
            pod: member.name.clone(),
            node: member.node.clone().with_context(|| format!("{} has no node", member.name))?,
            container: names::CONTAINER.to_owned(),
            container_id: member
                .container
                .clone()
                .with_context(|| format!("{} has no container", member.name))?,
            pgdata: paths::PGDATA.to_owned(),
            agent: "*matriarch-agent' 'run*".to_owned(),
            supervisor: "*matriarch-agent' 'supervise*".to_owned(),
            controller: None,
        })
    }
}
