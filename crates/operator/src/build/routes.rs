//! What the slices of `pgwrite` and `pgread` have in common with every writer of theirs (K2).

use api::{
    PostgresCluster,
    names::{self, labels, ports},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use kubernetes::slices::Route;

use crate::cluster::{ValidatedCluster, owner_reference};

/// Both routes: `pgwrite` first.
pub fn routes(cluster: &ValidatedCluster) -> [Route; 2] {
    let services = [cluster.write_service(), cluster.read_service()];
    services.map(|service| route(&cluster.namespace, &cluster.name, service, cluster.owner.clone()))
}

/// The same of a cluster whose spec is refused: names alone say where it led (K3). `None` for an object that no API server
/// has seen.
pub fn of_refused(cluster: &PostgresCluster) -> Option<[Route; 2]> {
    let (namespace, name) = (cluster.namespace()?, cluster.name_any());
    let owner = owner_reference(cluster)?;
    let services = &cluster.spec.services;
    let write = services.write.name.clone().unwrap_or_else(|| names::write_service(&name));
    let read = services.read.name.clone().unwrap_or_else(|| names::read_service(&name));
    Some([write, read].map(|service| route(&namespace, &name, service, owner.clone())))
}

fn route(namespace: &str, cluster: &str, service: String, owner: OwnerReference) -> Route {
    Route {
        namespace: namespace.to_owned(),
        service,
        port_name: ports::POSTGRES_NAME.to_owned(),
        port: ports::POSTGRES,
        owner,
        labels: labels::of_cluster(cluster),
    }
}
