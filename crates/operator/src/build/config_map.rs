//! ConfigMaps: the settings that members follow, and the operator's own memory of templates.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    MemberSettings, names,
    settings::{
        ClusterIdentity, DurabilitySettings, FORMAT, FailoverSettings, MemberPlan, PostgresSettings,
        ServiceSettings, SettingsError,
    },
};
use k8s_openapi::api::core::v1::ConfigMap;

use super::metadata;
use crate::cluster::ValidatedCluster;

/// What the plan adds to what the spec says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Members that exist or should, by pod name.
    pub members: BTreeSet<String>,
    /// Members that are about to stop.
    pub handover_away: BTreeSet<String>,
    /// Members that may restart PostgreSQL now.
    pub restart: BTreeSet<String>,
    /// Zones of the members' nodes, as far as they are known.
    pub zones: BTreeMap<String, String>,
}

/// The contract with members, as a value.
pub fn member_settings(cluster: &ValidatedCluster, wishes: &Wishes, families: &[String]) -> MemberSettings {
    let spec = &cluster.spec;
    let priority = |pod: &str| spec.failover.priorities.get(pod).copied().unwrap_or_default();
    MemberSettings {
        format: FORMAT,
        generation: cluster.generation,
        cluster: ClusterIdentity {
            name: cluster.name.clone(),
            namespace: cluster.namespace.clone(),
            uid: cluster.uid.clone(),
            identity: cluster.identity.clone(),
        },
        version: cluster.pinned.version,
        members: wishes
            .members
            .iter()
            .map(|pod| {
                let plan = MemberPlan {
                    pool: names::DEFAULT_POOL.to_owned(),
                    electable: true,
                    serves_reads: true,
                    priority: priority(pod),
                    zone: wishes.zones.get(pod).cloned(),
                    host: names::member_host(&cluster.name, &cluster.namespace, pod),
                };
                (pod.clone(), plan)
            })
            .collect(),
        handover_away: wishes.handover_away.clone(),
        restart: wishes.restart.clone(),
        postgres: PostgresSettings {
            parameters: cluster.parameters.clone(),
            shared_preload_libraries: spec.postgres.shared_preload_libraries.clone(),
            hba: spec.postgres.hba.clone(),
        },
        durability: DurabilitySettings {
            mode: spec.durability.mode,
            acks: u32::try_from(spec.durability.acks).unwrap_or(1),
            when_short: spec.durability.when_short,
            max_lag_bytes: spec.durability.max_lag.as_bytes(),
        },
        failover: FailoverSettings {
            detection_ms: spec.failover.detection.as_millis(),
            fence_ms: spec.failover.fence.as_millis(),
            shrink_after_ms: spec.failover.shrink_after.as_millis(),
        },
        services: ServiceSettings {
            write: cluster.write_service(),
            read: cluster.read_service(),
            read_max_lag_bytes: spec.services.read.max_lag.as_bytes(),
            read_includes_master: spec.services.read.include_master,
            families: families.to_vec(),
        },
        init: spec.bootstrap.init.clone(),
        paused: spec.paused,
        promote: cluster.promote.clone(),
    }
}

/// The ConfigMap that members watch.
pub fn settings(cluster: &ValidatedCluster, settings: &MemberSettings) -> Result<ConfigMap, SettingsError> {
    Ok(with_data(
        cluster,
        names::settings(&cluster.name),
        [(names::SETTINGS_KEY.to_owned(), settings.to_json()?)].into(),
    ))
}

/// The same settings with nothing changed but that the operator is paused; none when they say so already. `there` is what
/// members were told last: an edit of the spec during the pause is not in it.
pub fn paused(cluster: &ValidatedCluster, there: &ConfigMap) -> Result<Option<ConfigMap>, SettingsError> {
    let text = there.data.as_ref().and_then(|data| data.get(names::SETTINGS_KEY));
    let Some(told) = text.map(|text| MemberSettings::from_json(text)).transpose()? else { return Ok(None) };
    if told.paused { Ok(None) } else { settings(cluster, &told.paused()).map(Some) }
}

/// The operator's memory of pod templates (K12).
pub fn templates(cluster: &ValidatedCluster, data: BTreeMap<String, String>) -> ConfigMap {
    with_data(cluster, names::last_good_template(&cluster.name), data)
}

fn with_data(cluster: &ValidatedCluster, name: String, data: BTreeMap<String, String>) -> ConfigMap {
    ConfigMap { metadata: metadata::owned(cluster, name), data: Some(data), ..ConfigMap::default() }
}
