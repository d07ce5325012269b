//! What the slices of `pgwrite` and `pgread` have in common with every writer of theirs (K2).

use api::names::{labels, ports};
use kubernetes::slices::Route;

use crate::cluster::ValidatedCluster;

/// Both routes: `pgwrite` first.
pub fn routes(cluster: &ValidatedCluster) -> [Route; 2] {
    [cluster.write_service(), cluster.read_service()].map(|service| Route {
        namespace: cluster.namespace.clone(),
        service,
        port_name: ports::POSTGRES_NAME.to_owned(),
        port: ports::POSTGRES,
        owner: cluster.owner.clone(),
        labels: labels::of_cluster(&cluster.name),
    })
}
