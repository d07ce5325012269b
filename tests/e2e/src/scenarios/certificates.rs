//! The certificate authority is replaced while everything runs (K10).
//!
//! Turned red by: a leaf that is signed by the new authority before every member trusts it, a member that needs a restart
//! to take it, an old authority that is never let go.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::conditions;
use api::names::{self, labels};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use crate::client::gaps;
use crate::cluster::{Cluster, FORM, HEAL, tell};
use crate::faults::Fault;
use crate::judge;
use crate::scenarios::control::starts;
use crate::scenarios::failover::{self, HANG, bystander};
use crate::wait;
use crate::world::{World, now};

/// Clients get two minutes to learn the new one from their Secret, so a whole rotation is slow on purpose.
const ROTATION: Duration = Duration::from_secs(420);

/// Asked for by the annotation; a failover afterwards shows that the members trust each other.
pub(crate) async fn authority_replaced(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let before = cluster.whole(world, 3, FORM).await?;
    let client = bystander(world, &cluster, &before).await?;
    let began = starts(world, &cluster, &client).await?;
    let old = authority(world, &cluster).await?;
    let since = now();
    let wish = format!("{}", world.next());
    cluster.patch(world, &json!({"metadata": {"annotations": {labels::ROTATE_CA: wish}}})).await?;
    let mut both = false;
    let (new, took) = wait::until("one new authority, and nobody trusts the old one", ROTATION, async || {
        let current = authority(world, &cluster).await?;
        let trusted = trusted(world, &cluster).await?;
        both |= certificates(&trusted) == 2;
        let told = cluster.look(world).await?.condition(conditions::types::CERTIFICATES_VALID);
        let valid = told
            .as_ref()
            .is_some_and(|(status, reason, _)| status == "True" && reason == conditions::reasons::VALID);
        let done = current != old && trusted.trim() == current.trim() && valid;
        Ok(if done { Ok(current) } else { Err(format!("{} trusted, {told:?}", certificates(&trusted))) })
    })
    .await?;
    ensure!(both, "there was no time in which clients were told of both");
    ensure!(certificates(&new) == 1, "the new authority is {} certificates", certificates(&new));
    world.say(format!("the authority was replaced within {:.0} s", took.as_secs_f64()));
    let after = judge::one_master(world, &cluster, &client, 3, HEAL).await?;
    ensure!(after.leader() == before.leader(), "the master changed: {before} became {after}");
    ensure!(starts(world, &cluster, &client).await? == began, "PostgreSQL was restarted");
    let (text, longest) = gaps(&client.between(world, since, now()).await?);
    world.say(format!("gap all the while: {text}"));
    tell(world, "longest gap", longest, Duration::from_secs(1), HANG)?;
    client.finish(world, &cluster).await?;
    failover::under_load(world, &cluster, Fault::Postmaster, 3).await
}

/// What signs now.
async fn authority(world: &World, cluster: &Cluster) -> Result<String> {
    read(world, cluster, &names::ca_secret(&cluster.name), "ca.crt").await
}

/// What clients are told to trust.
async fn trusted(world: &World, cluster: &Cluster) -> Result<String> {
    read(world, cluster, &names::app_secret(&cluster.name), "ca.crt").await
}

async fn read(world: &World, cluster: &Cluster, name: &str, key: &str) -> Result<String> {
    let secret = world.api::<Secret>(&cluster.namespace).get(name).await?;
    let data = secret.data.with_context(|| format!("{name} is empty"))?;
    let bytes = data.get(key).with_context(|| format!("{name} has no {key}"))?;
    String::from_utf8(bytes.0.clone()).with_context(|| format!("{key} of {name}"))
}

fn certificates(pem: &str) -> usize {
    pem.matches("-----BEGIN CERTIFICATE-----").count()
}
