//! What a member may do: its own cluster's objects, by name (K17).
//!
//! Watches under `resourceNames` are allowed when they carry `fieldSelector metadata.name=…`, and so is the list that
//! begins them. `create` cannot be limited by name; slices and Events are the only kinds that members may create. The
//! operator must itself hold every verb in here (escalation check).

use std::collections::BTreeSet;

use api::names;
use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
};
use kubernetes::slices::{Family, slice_name};

use super::metadata;
use crate::cluster::ValidatedCluster;

/// The identity of members. Its token is mounted in PostgreSQL's container only (K9).
pub fn service_account(cluster: &ValidatedCluster) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata::owned(cluster, names::member_role(&cluster.name)),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The Role; `pods` are all that exist or are about to, so that it is there before `replicas` grows.
pub fn role(cluster: &ValidatedCluster, pods: &BTreeSet<String>) -> Role {
    const SEE: [&str; 3] = ["get", "list", "watch"];
    let name = cluster.name.as_str();
    let secrets = [
        names::superuser_secret(name),
        names::app_secret(name),
        names::server_secret(name),
        names::peer_secret(name),
        names::client_secret(name),
    ];
    let slices: Vec<String> = [cluster.write_service(), cluster.read_service()]
        .iter()
        .flat_map(|service| [Family::V4, Family::V6].map(|family| slice_name(service, family)))
        .collect();
    Role {
        metadata: metadata::owned(cluster, names::member_role(name)),
        rules: Some(vec![
            rule("coordination.k8s.io", "leases", &[&SEE[..], &["update"]].concat(), [names::lease(name)]),
            rule("", "configmaps", &SEE, [names::settings(name)]),
            rule("", "secrets", &SEE, secrets),
            rule("", "pods", &[&SEE[..], &["patch"]].concat(), pods.iter().cloned()),
            rule("discovery.k8s.io", "endpointslices", &[&SEE[..], &["update"]].concat(), slices),
            rule("discovery.k8s.io", "endpointslices", &["create"], []),
            rule("matriarch.dev", "postgresclusters/status", &["get", "patch"], [name.to_owned()]),
            rule("events.k8s.io", "events", &["create", "patch"], []),
        ]),
    }
}

/// Gives the Role to the ServiceAccount.
pub fn role_binding(cluster: &ValidatedCluster) -> RoleBinding {
    let name = names::member_role(&cluster.name);
    RoleBinding {
        metadata: metadata::owned(cluster, name.clone()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: name.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name,
            namespace: Some(cluster.namespace.clone()),
            ..Subject::default()
        }]),
    }
}

fn rule(
    group: &str,
    resource: &str,
    verbs: &[&str],
    resource_names: impl IntoIterator<Item = String>,
) -> PolicyRule {
    let resource_names: Vec<String> = resource_names.into_iter().collect();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        // An empty list would mean every name.
        resource_names: (!resource_names.is_empty()).then_some(resource_names),
        ..PolicyRule::default()
    }
}
