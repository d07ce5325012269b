//! What is broken, how, and how it is mended. Whoever adds a fault adds its recovery.
//!
//! A fault says of itself whether the epoch must change. What was broken is noted before it is broken, so that [`mend`]
//! mends what was broken by half, too. A process is named by its container and what it runs, never by its number alone.

mod controller;
mod links;
mod processes;
mod victim;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::cluster::Cluster;
use crate::seen::Member;
use crate::world::World;
use links::Direction;

pub(crate) use processes::{exec, kill_container};
pub(crate) use victim::{Controller, Victim};

/// A fault of the master, or of what is around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// No fault: the master is asked to hand over.
    Switchover,
    /// `kill -9` of the postmaster alone.
    Postmaster,
    /// SIGKILL to every process of the container at once, PID 1 included (K8).
    Container,
    /// The pod deleted, with its whole grace period.
    Delete,
    /// The pod deleted with a grace period of 0.
    DeleteByForce,
    /// The pod deleted while the controller is scaled to 0.
    DeleteControllerDown,
    /// Its node without power.
    NodePower,
    /// Its node without network.
    NodeNetwork,
    /// Nothing that others send reaches its node; what it sends goes out.
    NodeDeaf,
    /// Nothing that its node sends goes out; what others send reaches it.
    NodeMute,
    /// SIGSTOP of the agent alone, beside a healthy PostgreSQL.
    AgentFrozen,
    /// SIGSTOP of PID 1.
    SupervisorFrozen,
    /// SIGSTOP of the postmaster: sessions go on, new ones are not answered.
    PostmasterFrozen,
    /// The freezer holds every process of the container; it thaws after the failover.
    PodFrozen,
    /// SIGSTOP of the API server: connections are accepted and never answered.
    ApiDown,
    /// The controller scaled to 0.
    ControllerDown,
    /// SIGKILL of every process of the controller.
    ControllerKilled,
}

/// What is to become of the master by a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A later epoch, whoever leads in it.
    NewEpoch,
    /// The same epoch, and writes go on meanwhile.
    Nothing,
}

/// What the rig must be told to mend.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    cut: BTreeSet<String>,
    dark: BTreeSet<String>,
    cordoned: BTreeSet<String>,
    filtered: BTreeSet<String>,
    /// Node and container with stopped processes.
    stopped: BTreeSet<(String, String)>,
    /// Node and container in the freezer.
    frozen: BTreeSet<(String, String)>,
    /// Namespace, name and wanted replicas of a Deployment that is scaled to 0.
    scaled: Option<(String, String, i32)>,
    api_stopped: bool,
}

impl Fault {
    /// All of them.
    pub(crate) const ALL: [Self; 17] = [
        Self::Switchover,
        Self::Postmaster,
        Self::Container,
        Self::Delete,
        Self::DeleteByForce,
        Self::DeleteControllerDown,
        Self::NodePower,
        Self::NodeNetwork,
        Self::NodeDeaf,
        Self::NodeMute,
        Self::AgentFrozen,
        Self::SupervisorFrozen,
        Self::PostmasterFrozen,
        Self::PodFrozen,
        Self::ApiDown,
        Self::ControllerDown,
        Self::ControllerKilled,
    ];

    /// As on the command line and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Postmaster => "postmaster",
            Self::Container => "container",
            Self::Delete => "delete",
            Self::DeleteByForce => "delete-by-force",
            Self::DeleteControllerDown => "delete-controller-down",
            Self::NodePower => "node-power",
            Self::NodeNetwork => "node-network",
            Self::NodeDeaf => "node-deaf",
            Self::NodeMute => "node-mute",
            Self::AgentFrozen => "agent-frozen",
            Self::SupervisorFrozen => "supervisor-frozen",
            Self::PostmasterFrozen => "postmaster-frozen",
            Self::PodFrozen => "pod-frozen",
            Self::ApiDown => "api-down",
            Self::ControllerDown => "controller-down",
            Self::ControllerKilled => "controller-killed",
        }
    }

    /// For readers of a table.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Switchover => "planned switchover",
            Self::Postmaster => "`kill -9` of the postmaster",
            Self::Container => "every process of the container killed at once",
            Self::Delete => "master pod deleted",
            Self::DeleteByForce => "master pod deleted with force",
            Self::DeleteControllerDown => "master pod deleted while the controller is down",
            Self::NodePower => "node power-cut",
            Self::NodeNetwork => "node network-cut",
            Self::NodeDeaf => "nothing reaches the node, what it sends goes out",
            Self::NodeMute => "nothing leaves the node, what others send reaches it",
            Self::AgentFrozen => "agent frozen beside a healthy PostgreSQL",
            Self::SupervisorFrozen => "supervisor frozen",
            Self::PostmasterFrozen => "postmaster frozen",
            Self::PodFrozen => "pod frozen, thawed after the failover",
            Self::ApiDown => "API server frozen",
            Self::ControllerDown => "controller down",
            Self::ControllerKilled => "controller killed",
        }
    }

    /// What must become of the master.
    pub(crate) fn expected(self) -> Expected {
        match self {
            Self::ApiDown | Self::ControllerDown | Self::ControllerKilled => Expected::Nothing,
            _ => Expected::NewEpoch,
        }
    }

    /// Whether the master lives on where others do not hear it, or it does not hear them.
    pub(crate) fn cuts_off(self) -> bool {
        matches!(self, Self::NodeNetwork | Self::NodeDeaf | Self::NodeMute)
    }

    /// Whether it is made while the controller is down: a planned change is asked of the members themselves, where the
    /// controller would put it right at once.
    pub(crate) fn without_controller(self) -> bool {
        matches!(self, Self::Switchover | Self::DeleteControllerDown)
    }

    /// Breaks it.
    pub(crate) async fn make(self, world: &World, cluster: &Cluster, master: &Member) -> Result<()> {
        self.strike(world, &Victim::of(cluster, master)?).await
    }

    /// Breaks it, wherever it is. A planned switchover is asked for in each system's own way, so here it does nothing; the
    /// controller of the fault is the victim's, and a victim without one keeps none.
    pub(crate) async fn strike(self, world: &World, victim: &Victim) -> Result<()> {
        match self {
            Self::Switchover => Ok(()),
            Self::Postmaster => processes::signal_postmaster(world, victim, "KILL").await,
            Self::Container => kill_container(world, &victim.node, &victim.container_id, 3).await,
            Self::Delete | Self::DeleteControllerDown => delete_pod(world, victim, None).await,
            Self::DeleteByForce => delete_pod(world, victim, Some(0)).await,
            Self::NodePower => {
                world.outstanding.borrow_mut().dark.insert(victim.node.clone());
                world.rig(&["node", "kill", &victim.node]).await.map(drop)
            }
            Self::NodeNetwork => cut(world, &victim.node).await,
            Self::NodeDeaf | Self::NodeMute => {
                world.outstanding.borrow_mut().filtered.insert(victim.node.clone());
                let lost = if self == Self::NodeDeaf { Direction::In } else { Direction::Out };
                links::filter(world, &victim.node, lost).await
            }
            Self::AgentFrozen => {
                note_stopped(world, victim);
                processes::stop(world, victim, &victim.agent).await
            }
            Self::SupervisorFrozen => {
                note_stopped(world, victim);
                processes::stop(world, victim, &victim.supervisor).await
            }
            Self::PostmasterFrozen => {
                note_stopped(world, victim);
                processes::signal_postmaster(world, victim, "STOP").await
            }
            Self::PodFrozen => {
                let place = (victim.node.clone(), victim.container_id.clone());
                world.outstanding.borrow_mut().frozen.insert(place);
                processes::freeze(world, &victim.node, &victim.container_id, true).await
            }
            Self::ApiDown => stop_api(world).await,
            Self::ControllerDown => without_controller(world, victim).await,
            Self::ControllerKilled => match &victim.controller {
                Some(deployment) => controller::kill(world, &deployment.program).await,
                None => Ok(()),
            },
        }
    }
}

/// Scales the victim's controller to 0 and waits until it is gone; nothing for one without.
pub(crate) async fn without_controller(world: &World, victim: &Victim) -> Result<()> {
    let Some(deployment) = &victim.controller else { return Ok(()) };
    let (namespace, name) = (deployment.namespace.clone(), deployment.name.clone());
    let replicas = controller::replicas(world, &namespace, &name).await?;
    world.outstanding.borrow_mut().scaled = Some((namespace.clone(), name.clone(), replicas));
    controller::scale(world, &namespace, &name, 0).await
}

fn note_stopped(world: &World, victim: &Victim) {
    let place = (victim.node.clone(), victim.container_id.clone());
    world.outstanding.borrow_mut().stopped.insert(place);
}

async fn delete_pod(world: &World, victim: &Victim, grace: Option<u32>) -> Result<()> {
    let parameters = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
    let deleted = world.api::<Pod>(&victim.namespace).delete(&victim.pod, &parameters).await;
    deleted.map(drop).with_context(|| format!("delete pod {}", victim.pod))
}

/// Cuts a node off.
pub(crate) async fn cut(world: &World, node: &str) -> Result<()> {
    world.outstanding.borrow_mut().cut.insert(node.to_owned());
    world.rig(&["node", "cut", node]).await.map(drop)
}

/// Lets no new pod onto any node; those that run stay.
pub(crate) async fn cordon_all(world: &World) -> Result<()> {
    for node in world.nodes().await? {
        world.outstanding.borrow_mut().cordoned.insert(node.clone());
        unschedulable(world, &node, true).await?;
    }
    Ok(())
}

async fn unschedulable(world: &World, node: &str, is: bool) -> Result<()> {
    let change = json!({"spec": {"unschedulable": is}});
    Api::<Node>::all(world.client.clone())
        .patch(node, &PatchParams::default(), &Patch::Merge(&change))
        .await
        .with_context(|| format!("make {node} unschedulable: {is}"))?;
    Ok(())
}

/// Freezes the API server.
pub(crate) async fn stop_api(world: &World) -> Result<()> {
    world.outstanding.borrow_mut().api_stopped = true;
    world.rig(&["api", "stop"]).await.map(drop)
}

/// Mends everything that is broken now; what cannot be mended keeps nothing else from being mended.
pub(crate) async fn mend(world: &World) -> Result<()> {
    let broken = std::mem::take(&mut *world.outstanding.borrow_mut());
    let mut outcomes = Vec::new();
    if broken.api_stopped {
        outcomes.push(world.rig(&["api", "cont"]).await.map(drop));
    }
    for node in broken.filtered {
        outcomes.push(links::clear(world, &node).await);
    }
    for (node, container) in broken.stopped {
        outcomes.push(processes::go_on(world, &node, &container).await);
    }
    for (node, container) in broken.frozen {
        outcomes.push(processes::freeze(world, &node, &container, false).await);
    }
    for node in broken.cordoned {
        outcomes.push(unschedulable(world, &node, false).await);
    }
    for node in broken.cut {
        outcomes.push(world.rig(&["node", "heal", &node]).await.map(drop));
    }
    for node in broken.dark {
        outcomes.push(world.rig(&["node", "start", &node]).await.map(drop));
    }
    if let Some((namespace, name, replicas)) = broken.scaled {
        outcomes.push(controller::scale(world, &namespace, &name, replicas).await);
    }
    outcomes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_fault_is_listed_and_called_as_on_the_command_line() {
        assert_eq!(Fault::ALL.as_slice(), Fault::value_variants());
        for fault in Fault::ALL {
            let value = fault.to_possible_value().unwrap();
            assert_eq!(value.get_name(), fault.name());
        }
    }
}
