//! What is under fault, so that different systems meet the same faults, clients and clocks.
//!
//! A system says who leads, when it is whole, and how a planned switchover is asked of it; everything else is the same for
//! all. What it says is only observed: clients' logs judge.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::names::{self, labels};
use api::settings::MemberSettings;
use ha::Record;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::client::Client;
use crate::cluster::{Cluster, HEAL};
use crate::faults::{Controller, Fault, Victim};
use crate::judge;
use crate::scenarios::control::find_operator;
use crate::world::World;

/// Members of every system.
pub(crate) const INSTANCES: usize = 3;

/// What one look saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Who leads, by the record.
    pub(crate) master: Option<String>,
    /// Grows with each change of leader.
    pub(crate) term: u64,
    /// Whether that term may acknowledge writes, as far as the record tells.
    pub(crate) open: bool,
    /// The label of each member's pod, `-` without one; a pod that is gone is not in it.
    pub(crate) roles: BTreeMap<String, String>,
}

/// A system under fault.
pub(crate) trait System: Sized {
    /// What it is called in lines and tables.
    const PEER: &'static str;

    /// Makes one of [`INSTANCES`] members; does not wait for it.
    async fn form(world: &World, settings: &Value) -> Result<Self>;

    /// Removes it.
    async fn remove(self, world: &World) -> Result<()>;

    /// Where clients find it: the namespace, the Service for writers, and a Secret `<name>-app` with `uri` and `ca.crt`.
    fn cluster(&self) -> &Cluster;

    /// Whether it mends this fault where it struck, without another master, container or term: writes then go on in the
    /// same one. None of ours does.
    fn keeps_master(&self, _fault: Fault) -> bool {
        false
    }

    /// Waits until all members are there and agree on the master; returns where faults strike.
    async fn whole(&self, world: &World, bound: Duration) -> Result<Victim>;

    /// Waits, after a fault was mended, until everything agrees again, the databases themselves included.
    async fn healed(&self, world: &World, client: &Client) -> Result<()>;

    /// Looks once, cheaply: this is done ten times a second.
    async fn look(&self, world: &World) -> Result<View>;

    /// Asks for another master.
    async fn switch_over(&self, world: &World, master: &Victim) -> Result<()>;
}

/// Our own.
#[derive(Debug)]
pub(crate) struct Matriarch {
    cluster: Cluster,
    controller: Controller,
}

impl System for Matriarch {
    const PEER: &'static str = "matriarch";

    async fn form(world: &World, settings: &Value) -> Result<Self> {
        let operator = find_operator(world).await?;
        let namespace = world.namespace("bench").await?;
        let cluster = Cluster::from_example(world, &namespace, "minimal.yaml", settings).await?;
        Ok(Self { cluster, controller: controller(&operator) })
    }

    async fn remove(self, world: &World) -> Result<()> {
        world.remove_namespace(&self.cluster.namespace).await
    }

    fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    async fn whole(&self, world: &World, bound: Duration) -> Result<Victim> {
        let seen = self.cluster.whole(world, INSTANCES, bound).await?;
        let victim = Victim::of(&self.cluster, seen.master()?)?;
        Ok(Victim { controller: Some(self.controller.clone()), ..victim })
    }

    async fn healed(&self, world: &World, client: &Client) -> Result<()> {
        judge::one_master(world, &self.cluster, client, INSTANCES, HEAL).await.map(drop)
    }

    async fn look(&self, world: &World) -> Result<View> {
        let (pods, leases): (Api<Pod>, Api<Lease>) =
            (world.api(&self.cluster.namespace), world.api(&self.cluster.namespace));
        let of_members = ListParams::default().labels(&format!("{}={}", labels::CLUSTER, self.cluster.name));
        let lease = names::lease(&self.cluster.name);
        let (pods, lease) = tokio::try_join!(pods.list(&of_members), leases.get_opt(&lease))?;
        let record = lease
            .and_then(|lease| lease.annotations().get(labels::RECORD).cloned())
            .map(|text| serde_json::from_str::<Record>(&text).context("read the record"))
            .transpose()?;
        let leader = record.as_ref().and_then(|record| record.leader.as_ref());
        Ok(View {
            master: leader.map(|leader| leader.name.0.clone()),
            term: record.as_ref().map_or(0, |record| record.epoch.0),
            open: record.as_ref().is_some_and(|record| record.fence_xid.is_some()),
            roles: roles(&pods.items),
        })
    }

    /// Tells the members, as the operator does when it needs a member gone. Made while the operator is down: it would take
    /// back at once what is not its own wish, and it does so when it returns.
    async fn switch_over(&self, world: &World, master: &Victim) -> Result<()> {
        let api: Api<ConfigMap> = world.api(&self.cluster.namespace);
        let name = names::settings(&self.cluster.name);
        let told = api.get(&name).await.context("read the members' settings")?;
        let text = told.data.as_ref().and_then(|data| data.get(names::SETTINGS_KEY));
        let text = text.context("the members' settings are empty")?;
        let mut settings = MemberSettings::from_json(text).context("read the members' settings")?;
        settings.handover_away.insert(master.pod.clone());
        let change = json!({"data": {names::SETTINGS_KEY: settings.to_json()?}});
        let changed = api.patch(&name, &PatchParams::default(), &Patch::Merge(&change)).await;
        changed.map(drop).context("tell the members")
    }
}

/// The labels that people see.
pub(crate) fn roles(pods: &[Pod]) -> BTreeMap<String, String> {
    let role = |pod: &Pod| pod.labels().get(labels::ROLE).cloned().unwrap_or_else(|| "-".to_owned());
    pods.iter().map(|pod| (pod.name_any(), role(pod))).collect()
}

fn controller(operator: &Deployment) -> Controller {
    let container = operator.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()?.containers.first());
    let program = container.and_then(|container| container.command.as_ref()?.first()).map(String::as_str);
    let program = program.unwrap_or("matriarch-operator");
    Controller {
        namespace: operator.namespace().unwrap_or_default(),
        name: operator.name_any(),
        program: program.rsplit('/').next().unwrap_or(program).to_owned(),
    }
}

/// Makes one and waits until it is whole; removes it when it does not become so.
pub(crate) async fn formed<S: System>(world: &World, settings: &Value, bound: Duration) -> Result<S> {
    let start = Instant::now();
    let system = S::form(world, settings).await?;
    match system.whole(world, bound).await {
        Ok(_) => {
            world.say(format!("{} formed within {:.0} s", S::PEER, start.elapsed().as_secs_f64()));
            Ok(system)
        }
        Err(error) => {
            crate::diagnose::dump(world).await;
            system.remove(world).await?;
            Err(error)
        }
    }
}
