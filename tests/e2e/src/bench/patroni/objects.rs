//! What is created for Patroni: the manifests beside this crate, and what they name and cannot hold, passwords and a
//! certificate, so that clients are the same as ours in every respect, TLS included.

use anyhow::{Context, Result, ensure};
use api::names;
use jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use pki::{Authority, Leaf};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::cluster::{Cluster, merge};
use crate::world::World;

/// Everything but the next ones, in the order of creation.
const OBJECTS: &str = include_str!("../../../peers/patroni/objects.yaml");
/// Patroni's configuration without its times.
const CONFIGURATION: &str = include_str!("../../../peers/patroni/patroni.yml");
/// What is done in a new database.
const APP: &str = include_str!("../../../peers/patroni/app.sql");

/// Creates all of it.
pub(super) async fn create(world: &World, cluster: &Cluster, times: &str) -> Result<()> {
    let mut all = vec![configuration(cluster, times)?];
    all.extend(secrets(cluster)?);
    all.extend(manifests()?);
    for object in all {
        create_one(world, &cluster.namespace, object).await?;
    }
    Ok(())
}

fn manifests() -> Result<Vec<Value>> {
    serde_yaml::Deserializer::from_str(OBJECTS)
        .map(|document| Value::deserialize(document).context("read the manifests of Patroni"))
        .collect()
}

/// The ConfigMap; the configuration in it is JSON, which is YAML.
fn configuration(cluster: &Cluster, times: &str) -> Result<Value> {
    let mut configuration: Value = serde_yaml::from_str(CONFIGURATION).context("read patroni.yml")?;
    let times: Value = serde_yaml::from_str(times).context("read Patroni's times")?;
    ensure!(configuration["scope"] == cluster.name, "patroni.yml is for another cluster");
    merge(&mut configuration, &json!({"bootstrap": {"dcs": times}}));
    Ok(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("{}-patroni", cluster.name)},
        "data": {"patroni.yml": configuration.to_string(), "app.sql": APP},
    }))
}

/// Passwords, a certificate for every name that clients use, and the application's Secret as our clusters have it.
fn secrets(cluster: &Cluster) -> Result<[Value; 2]> {
    let password = || format!("{:032x}", rand::random::<u128>());
    let now = Timestamp::now();
    let authority = Authority::create(&cluster.name, now).context("make an authority")?;
    let hosts = vec![cluster.write_host(), cluster.read_host(), cluster.member_host("*")];
    let issued = authority.issue(&Leaf::server(hosts), now).context("make a certificate")?;
    let app = password();
    let uri = format!(
        "postgresql://app:{app}@{}:5432/app?sslmode=require&connect_timeout=2\
         &keepalives=1&keepalives_idle=2&keepalives_interval=1&keepalives_count=3&tcp_user_timeout=3000",
        cluster.write_host()
    );
    let secret = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
    Ok([
        secret(
            &cluster.name,
            json!({
                "superuser-password": password(), "replication-password": password(),
                "tls.crt": issued.certificate_pem(), "tls.key": issued.key_pem(),
            }),
        ),
        secret(
            &names::app_secret(&cluster.name),
            json!({"uri": uri, "password": app, "ca.crt": authority.certificate_pem()}),
        ),
    ])
}

async fn create_one(world: &World, namespace: &str, object: Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object).context("read an object")?;
    let types = object.types.as_ref().context("an object without a kind")?;
    let kind = GroupVersionKind::try_from(types).context("read an object's kind")?;
    let api: Api<DynamicObject> =
        Api::namespaced_with(world.client.clone(), namespace, &ApiResource::from_gvk(&kind));
    api.create(&PostParams::default(), &object).await.with_context(|| {
        format!("create {} {}", kind.kind, object.metadata.name.as_deref().unwrap_or("-"))
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::{Fastest, Recommended, Setting};
    use super::*;

    fn cluster() -> Cluster {
        Cluster {
            namespace: "shop".to_owned(),
            name: "pg".to_owned(),
            applied: Instant::now(),
            write_service: "pg".to_owned(),
            read_service: "pg-repl".to_owned(),
        }
    }

    #[test]
    fn the_manifests_are_of_this_cluster_and_whole() {
        let all = manifests().unwrap();
        assert_eq!(all.len(), 8);
        let set = all.last().unwrap();
        assert_eq!(set["kind"], "StatefulSet");
        assert_eq!(set["metadata"]["name"], cluster().name);
        assert_eq!(set["spec"]["template"]["spec"]["containers"][0]["name"], names::CONTAINER);
        assert_eq!(set["spec"]["template"]["spec"]["volumes"][2]["secret"]["defaultMode"], 0o440);
        let host = cluster().member_host("pg-0");
        assert!(host.contains(&format!(".{}.", set["spec"]["serviceName"].as_str().unwrap())), "{host}");
    }

    #[test]
    fn the_settings_are_legal_and_durable() {
        for times in [Recommended::TIMES, Fastest::TIMES] {
            let map = configuration(&cluster(), times).unwrap();
            let text = map["data"]["patroni.yml"].as_str().unwrap();
            let dcs = serde_json::from_str::<Value>(text).unwrap()["bootstrap"]["dcs"].clone();
            let of = |key: &str| dcs[key].as_u64().unwrap();
            // Patroni's own rule; it would change what breaks it, and say so only in its log.
            assert!(of("loop_wait") + 2 * of("retry_timeout") <= of("ttl"));
            assert!(of("ttl") >= 20 && of("loop_wait") >= 1 && of("retry_timeout") >= 3);
            assert_eq!(dcs["synchronous_mode"], "quorum");
            assert_eq!(dcs["postgresql"]["parameters"]["fsync"], "on");
        }
    }

    #[test]
    fn clients_find_what_our_own_clusters_give_them() {
        let [own, app] = secrets(&cluster()).unwrap();
        assert_eq!(app["metadata"]["name"], "pg-app");
        let uri = app["stringData"]["uri"].as_str().unwrap();
        assert!(uri.contains("@pg.shop.svc:5432/app?sslmode=require"));
        assert!(own["stringData"]["tls.key"].as_str().unwrap().contains("PRIVATE KEY"));
    }
}
