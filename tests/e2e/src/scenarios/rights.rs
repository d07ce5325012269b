//! What a stolen token of a member cannot do.
//!
//! Turned red by: a Role without `resourceNames`, a chart without the admission policy (K18).

use anyhow::{Context, Result, bail, ensure};
use api::names::{self, labels};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::config::AuthInfo;
use serde_json::json;

use crate::cluster::FORM;
use crate::world::World;

/// A member's token against an image, another label, another cluster's record, Secrets.
pub(crate) async fn member_token(world: &World) -> Result<()> {
    let cluster = world.shared().await?;
    let seen = cluster.whole(world, 3, FORM).await?;
    let namespace = &cluster.namespace;
    let replica = seen.replicas().next().context("there is no replica")?;

    let foreign: Lease = serde_json::from_value(json!({
        "metadata": {"name": "another", "annotations": {labels::RECORD: "{}"}}, "spec": {"holderIdentity": "somebody"},
    }))?;
    world.api::<Lease>(namespace).create(&PostParams::default(), &foreign).await?;
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "another"}, "stringData": {"a": "b"}}))?;
    world.api::<Secret>(namespace).create(&PostParams::default(), &secret).await?;

    let token = world
        .api::<ServiceAccount>(namespace)
        .create_token_request(
            &names::member_role(&cluster.name),
            &PostParams::default(),
            &TokenRequest::default(),
        )
        .await
        .context("ask for a member's token")?
        .status
        .context("no token")?
        .token;
    let mut config = world.config.clone();
    config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
    let member = kube::Client::try_from(config)?;
    let pods: Api<Pod> = Api::namespaced(member.clone(), namespace);
    let leases: Api<Lease> = Api::namespaced(member.clone(), namespace);
    let secrets: Api<Secret> = Api::namespaced(member.clone(), namespace);
    let maps: Api<ConfigMap> = Api::namespaced(member, namespace);

    // First that the token is good for what it is for, so that the refusals below mean something.
    leases.get(&names::lease(&cluster.name)).await.context("a member reads its own record")?;
    let uid = &replica.uid;
    let label = json!({"metadata": {"uid": uid, "labels": {labels::ROLE: labels::ROLE_REPLICA}}});
    patch(&pods, &replica.name, &label).await.context("a member labels a pod's role")?;

    let image = json!({"metadata": {"uid": uid}, "spec": {"containers": [{"name": names::CONTAINER, "image": "evil"}]}});
    refused("changing an image", patch(&pods, &replica.name, &image).await)?;
    let other = json!({"metadata": {"uid": uid, "labels": {"matriarch.dev/pool": "other"}}});
    refused("changing another label", patch(&pods, &replica.name, &other).await)?;
    let annotation = json!({"metadata": {"uid": uid, "annotations": {"a": "b"}}});
    refused("adding an annotation", patch(&pods, &replica.name, &annotation).await)?;
    let finalizer = json!({"metadata": {"uid": uid, "finalizers": ["a.b/c"]}});
    refused("adding a finalizer", patch(&pods, &replica.name, &finalizer).await)?;
    let holder = json!({"spec": {"holderIdentity": "me"}});
    let outcome = leases.patch("another", &PatchParams::default(), &Patch::Merge(&holder)).await;
    refused("changing another cluster's record", outcome)?;
    refused("reading another cluster's record", leases.get("another").await)?;
    refused("reading a Secret", secrets.get("another").await)?;
    refused("listing Secrets", secrets.list(&ListParams::default()).await)?;
    refused("reading the authority's key", secrets.get(&names::ca_secret(&cluster.name)).await)?;
    let own = json!({"data": {"password": "eA=="}});
    let app = names::app_secret(&cluster.name);
    refused(
        "changing the app Secret",
        secrets.patch(&app, &PatchParams::default(), &Patch::Merge(&own)).await,
    )?;
    let settings = json!({"data": {names::SETTINGS_KEY: "{}"}});
    let map = names::settings(&cluster.name);
    refused(
        "changing the settings",
        maps.patch(&map, &PatchParams::default(), &Patch::Merge(&settings)).await,
    )?;

    let after = cluster.look(world).await?;
    ensure!(after.member(&replica.name).is_some_and(|member| member.image == replica.image), "{after}");
    Ok(())
}

async fn patch(pods: &Api<Pod>, name: &str, change: &serde_json::Value) -> kube::Result<Pod> {
    pods.patch(name, &PatchParams::default(), &Patch::Strategic(change)).await
}

/// 403 by the Role, 422 by the admission policy.
fn refused<T>(what: &str, outcome: kube::Result<T>) -> Result<()> {
    match outcome {
        Err(kube::Error::Api(status)) if [403, 422].contains(&status.code) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{what} failed, but was not refused")),
        Ok(_) => bail!("{what} was allowed"),
    }
}
