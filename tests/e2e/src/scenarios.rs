//! Every scenario, most basic first, since the later ones rest on what the earlier ones show.

mod basics;
mod block;
mod certificates;
mod chart;
pub(crate) mod control;
mod elector;
pub(crate) mod failover;
mod input;
mod lifecycle;
mod modes;
mod objects;
mod parameters;
mod quiet;
mod replaced;
mod replay;
mod retain;
mod rights;
mod rollout;

use anyhow::Result;
use futures::future::LocalBoxFuture;

use crate::faults::Fault;
use crate::world::World;

/// One scenario.
pub(crate) struct Scenario {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it shows.
    pub(crate) about: &'static str,
    /// Whether CI runs it.
    pub(crate) in_ci: bool,
    /// Whether it breaks nodes, processes or the API server.
    pub(crate) needs_rig: bool,
    /// Runs it.
    pub(crate) run: for<'a> fn(&'a World) -> LocalBoxFuture<'a, Result<()>>,
}

macro_rules! scenario {
    ($name:literal, $about:literal, rig: $rig:literal, |$world:ident| $run:expr) => {
        Scenario { name: $name, about: $about, in_ci: true, needs_rig: $rig, run: |$world| Box::pin($run) }
    };
    (long $name:literal, $about:literal, rig: $rig:literal, |$world:ident| $run:expr) => {
        Scenario { name: $name, about: $about, in_ci: false, needs_rig: $rig, run: |$world| Box::pin($run) }
    };
}

/// All of them.
pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!("ready", "minimal manifest to three members; TLS through pgwrite and pgread; roles", rig: false,
        |world| basics::ready(world)),
    scenario!("members", "member host names; a deleted replica returns with its data, uncloned", rig: false,
        |world| basics::members(world)),
    scenario!("at-rest", "a minute of rest: writes to the API, resident memory", rig: true,
        |world| quiet::at_rest(world)),
    scenario!("postmaster-killed", "kill -9 of the master's postmaster", rig: false,
        |world| failover::fault(world, Fault::Postmaster)),
    scenario!("master-deleted", "the master's pod deleted gracefully", rig: false,
        |world| failover::fault(world, Fault::Delete)),
    scenario!("master-forced", "the master's pod deleted with force", rig: false,
        |world| failover::fault(world, Fault::DeleteByForce)),
    scenario!("container-killed", "all processes of the master's container killed, three times in a row", rig: true,
        |world| failover::container_three_times(world)),
    scenario!("node-power", "the master's node without power", rig: true,
        |world| failover::fault(world, Fault::NodePower)),
    scenario!("node-network", "the master's node cut off, with a session on it", rig: true,
        |world| failover::isolated(world)),
    scenario!("operator-down", "the same with the operator scaled to 0", rig: false,
        |world| control::operator_down(world)),
    scenario!("api-stopped", "60 s without the API server: writes go on, no role changes", rig: true,
        |world| control::api_stopped(world)),
    scenario!("rights", "what a member's token must not do", rig: false, |world| rights::member_token(world)),
    scenario!("scaling", "instances 3, 4, 2, 3 under load", rig: false, |world| lifecycle::scaling(world)),
    scenario!("operator-upgraded", "a new operator restarts no PostgreSQL", rig: true,
        |world| control::operator_upgraded(world)),
    scenario!("bad-input", "manifests that are refused, each with its message", rig: false,
        |world| input::refused(world)),
    scenario!("bad-parameter", "a parameter that only PostgreSQL refuses", rig: false,
        |world| rollout::bad_parameter(world)),
    scenario!("missing-image", "an image that does not exist: halted, gone back, healed by undoing", rig: false,
        |world| rollout::missing_image(world)),
    scenario!("parameters", "a reload, and restarts in the order that standbys need", rig: false,
        |world| parameters::changed(world)),
    scenario!("objects", "deleted Services, Secrets, Roles and the StatefulSet come back", rig: false,
        |world| objects::come_back(world)),
    scenario!("paused", "the operator leaves a paused cluster alone; elections go on", rig: false,
        |world| objects::paused(world)),
    scenario!(long "certificates", "the certificate authority replaced under load, without a restart", rig: false,
        |world| certificates::authority_replaced(world)),
    scenario!("chart", "uninstalled, then for one namespace only, then as it was: databases run on", rig: true,
        |world| chart::comes_and_goes(world)),
    scenario!(long "node-gone", "a follower whose node is gone for good is cloned anew on another", rig: true,
        |world| replaced::node_gone(world)),
    scenario!(long "replay", "the agents' decision logs give the same decisions again", rig: true,
        |world| replay::decisions(world)),
    scenario!("single", "one instance restarted: never a stale address in pgwrite", rig: false,
        |world| lifecycle::single(world)),
    scenario!("retain", "deleted and made again with Retain while the third member leads", rig: false,
        |world| retain::adopted(world)),
    scenario!("examples", "every example becomes ready as it stands", rig: false,
        |world| modes::examples(world)),
    scenario!("two-instances", "two members: either one is lost, writes go on", rig: false,
        |world| modes::two_instances(world)),
    scenario!(long "arbitrary-user", "a user without a passwd entry: formed, cloned, failed over", rig: false,
        |world| modes::arbitrary_user(world)),
    scenario!("asynchronous", "without a quorum: a bounded loss, and it is told", rig: true,
        |world| modes::asynchronous(world)),
    scenario!(long "block", "without any follower writes wait, reads go on, and nothing is lost", rig: false,
        |world| block::without_followers(world)),
    scenario!("majors", "PostgreSQL 15 and 18: formed, failed over, whole again", rig: false,
        |world| modes::majors(world)),
    scenario!(long "elector", "the elector as a sidecar: deleted, killed, cut off, without an API server, rolled", rig: true,
        |world| elector::sidecar(world)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
    }
}
