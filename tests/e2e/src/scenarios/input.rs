//! Manifests that are refused at admission, each with the message that its author sees.
//!
//! Turned red by: a rule left out of the CRD, or a message that does not name the field.

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams, PostParams, ValidationDirective};
use serde_json::{Value, json};

use crate::cluster::{FORM, clusters, merge};
use crate::world::World;

/// A merge patch on the smallest manifest, and pieces that the refusal must contain.
type Case = (Value, &'static [&'static str]);

/// What no cluster may be made with.
fn at_creation() -> Vec<Case> {
    let spec = |spec: Value| json!({"spec": spec});
    vec![
        (spec(json!({"storage": null})), &["spec.storage", "Required"]),
        (spec(json!({"storage": {"size": "10Mi"}})), &["storage.size", "256Mi", "10Gi"]),
        (spec(json!({"storage": {"size": "ten"}})), &["storage.size", "256Mi or more, such as 10Gi"]),
        (spec(json!({"version": 14})), &["spec.version", "15"]),
        (spec(json!({"version": 19})), &["spec.version", "18"]),
        (spec(json!({"version": "seventeen"})), &["spec.version", "numeric"]),
        (spec(json!({"instances": 0})), &["spec.instances", "1"]),
        (spec(json!({"instances": 17})), &["spec.instances", "16"]),
        (spec(json!({"durability": {"mode": "sync"}})), &["spec.durability.mode", "quorum", "async"]),
        (spec(json!({"durability": {"acks": 3}})), &["durability.acks", "write instances - 1 or less"]),
        (spec(json!({"durability": {"acks": 0}})), &["spec.durability.acks", "1"]),
        (spec(json!({"durability": {"whenShort": "panic"}})), &["whenShort", "continue", "block"]),
        (spec(json!({"failover": {"detection": "100ms"}})), &["failover.detection", "500ms to 60s"]),
        (spec(json!({"failover": {"detection": "2"}})), &["failover.detection", "500ms to 60s, such as 2s"]),
        (
            spec(json!({"failover": {"detection": "9s"}})),
            &["failover.shrinkAfter", "must be longer than failover.detection"],
        ),
        (
            spec(json!({"postgres": {"parameters": {"fsync": "off"}}})),
            &["fsync", "remove what belongs to the operator"],
        ),
        (
            spec(json!({"postgres": {"parameters": {"synchronous_standby_names": ""}}})),
            &["synchronous_standby_names", "remove what belongs to the operator"],
        ),
        (spec(json!({"postgres": {"parameters": {"work_mem": "1MB\nfsync = off"}}})), &["work_mem"]),
        (
            spec(json!({"postgres": {"hba": ["everybody"]}})),
            &["postgres.hba", "begins with host", "such as hostssl"],
        ),
        (
            spec(json!({"postgres": {"sharedPreloadLibraries": ["a b"]}})),
            &["sharedPreloadLibraries", "should match"],
        ),
        (
            spec(json!({"services": {"write": {"name": "x"}, "read": {"name": "x"}}})),
            &["write.name and read.name must differ"],
        ),
        (
            spec(json!({"services": {"write": {"name": "bad-pods"}}})),
            &["services.write.name", "choose another name"],
        ),
        (
            spec(json!({"bootstrap": {"init": {"owner": "postgres"}}})),
            &["bootstrap.init.owner", "write for example app"],
        ),
        (
            spec(json!({"bootstrap": {"init": {"database": "template0"}}})),
            &["bootstrap.init.database", "write for example app"],
        ),
        (spec(json!({"image": "Not An Image"})), &["image", "such as registry.example/postgres"]),
        (spec(json!({"imagePullPolicy": "Sometimes"})), &["imagePullPolicy", "IfNotPresent"]),
        (spec(json!({"securityContext": {"runAsUser": 0}})), &["runAsUser", "greater than or equal to 1"]),
        (spec(json!({"deletionPolicy": "Keep"})), &["deletionPolicy", "Retain", "Delete"]),
        (spec(json!({"instnces": 5})), &["instnces"]),
        (json!({"metadata": {"name": "has.a.dot"}}), &["metadata.name", "such as orders-db"]),
        (json!({"metadata": {"name": "n".repeat(41)}}), &["metadata.name", "at most 40 characters"]),
    ]
}

/// What no cluster of three members in PostgreSQL's default version may be changed to.
fn at_change() -> Vec<Case> {
    let spec = |spec: Value| json!({"spec": spec});
    vec![
        (
            spec(json!({"storage": {"size": "300Mi"}})),
            &["storage.size: volumes cannot shrink; write", "or more"],
        ),
        (
            spec(json!({"storage": {"storageClass": "other"}})),
            &["storage.storageClass", "create a new cluster in the other class"],
        ),
        (spec(json!({"bootstrap": {"init": {"database": "other"}}})), &["bootstrap", "use SQL instead"]),
        (
            spec(json!({"instances": 1, "durability": {"acks": 2}, "failover": {"fence": "0s"}})),
            &["failover.fence", "1s to 60s, such as 3s"],
        ),
    ]
}

/// Every case, without one object being made.
pub(crate) async fn refused(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    cluster.whole(world, 3, FORM).await?;
    let objects = clusters(world, &cluster.namespace);
    let (mut wrong, mut refused) = (Vec::new(), 0);

    let minimal = json!({
        "apiVersion": "matriarch.dev/v1alpha1", "kind": "PostgresCluster",
        "metadata": {"name": "bad", "namespace": cluster.namespace}, "spec": {"storage": {"size": "1Gi"}},
    });
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    objects.create(&dry, &serde_json::from_value(minimal.clone())?).await.context("the smallest manifest")?;
    for (change, pieces) in at_creation() {
        let mut manifest = minimal.clone();
        merge(&mut manifest, &change);
        // Strict, as kubectl asks for: a field that nobody knows is a spelling mistake. Only apply can say so here.
        let name = manifest["metadata"]["name"].as_str().unwrap_or("bad").to_owned();
        let strict = PatchParams {
            dry_run: true,
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::apply("matriarch-e2e")
        };
        let outcome = objects.patch(&name, &strict, &Patch::Apply(&manifest)).await;
        match verdict(&change, pieces, outcome.map(drop)) {
            None => refused += 1,
            Some(text) => wrong.push(text),
        }
    }
    for (change, pieces) in at_change() {
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        let outcome = objects.patch(&cluster.name, &dry, &Patch::Merge(&change)).await;
        match verdict(&change, pieces, outcome.map(drop)) {
            None => refused += 1,
            Some(text) => wrong.push(text),
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} cases:\n  {}",
        wrong.len(),
        wrong.len() + refused,
        wrong.join("\n  ")
    );
    world.say(format!("{refused} manifests refused, each with its message"));
    Ok(())
}

fn verdict(change: &Value, pieces: &[&str], outcome: kube::Result<()>) -> Option<String> {
    match outcome {
        Ok(()) => Some(format!("{change} was accepted")),
        Err(kube::Error::Api(status)) if pieces.iter().all(|piece| status.message.contains(piece)) => None,
        Err(error) => Some(format!("{change}: expected {pieces:?} in: {error}")),
    }
}
