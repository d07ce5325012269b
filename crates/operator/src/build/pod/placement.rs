//! Where members run when the user says nothing: apart, as far as there are nodes and zones.

use api::{
    Scheduling,
    names::{DEFAULT_POOL, labels},
};
use k8s_openapi::{
    api::core::v1::TopologySpreadConstraint, apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use crate::cluster::ValidatedCluster;

/// The user's constraints, else one over nodes and one over zones that never keep a member from running.
pub(super) fn spread(cluster: &ValidatedCluster, scheduling: &Scheduling) -> Vec<TopologySpreadConstraint> {
    if let Some(constraints) = &scheduling.topology_spread_constraints {
        return constraints.clone();
    }
    ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        .map(|key| TopologySpreadConstraint {
            topology_key: key.to_owned(),
            max_skew: 1,
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(LabelSelector {
                match_labels: Some(labels::pool_selector(&cluster.name, DEFAULT_POOL)),
                ..LabelSelector::default()
            }),
            ..TopologySpreadConstraint::default()
        })
        .to_vec()
}
