//! The Services of a cluster.
//!
//! `pgwrite` and `pgread` have no selector (K1): the leading agent writes their slices. The port's *name* is the same in
//! Service and slice, since kube-proxy matches by it (K2).

use std::collections::BTreeMap;

use api::{
    ServiceType,
    names::{self, DEFAULT_POOL, labels, ports},
};
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::metadata;
use crate::cluster::ValidatedCluster;

/// Stable host names of members, published before they are ready: cloning and joining need them.
pub fn headless(cluster: &ValidatedCluster) -> Service {
    let port = |name: &str, number: u16| ServicePort {
        target_port: Some(IntOrString::String(name.to_owned())),
        ..service_port(name, number)
    };
    Service {
        metadata: metadata::owned(cluster, names::headless_service(&cluster.name)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(labels::pool_selector(&cluster.name, DEFAULT_POOL)),
            ports: Some(vec![
                port(ports::POSTGRES_NAME, ports::POSTGRES),
                port(ports::HTTP_NAME, ports::HTTP),
                port(ports::PEER_NAME, ports::PEER),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The Service that leads to the master.
pub fn write(cluster: &ValidatedCluster) -> Service {
    let service = &cluster.spec.services.write;
    routed(cluster, cluster.write_service(), service.type_, &service.annotations)
}

/// The Service that leads to the followers.
pub fn read(cluster: &ValidatedCluster) -> Service {
    let service = &cluster.spec.services.read;
    routed(cluster, cluster.read_service(), service.type_, &service.annotations)
}

fn routed(
    cluster: &ValidatedCluster,
    name: String,
    type_: ServiceType,
    annotations: &BTreeMap<String, String>,
) -> Service {
    let mut metadata = metadata::owned(cluster, name);
    metadata.annotations = (!annotations.is_empty()).then(|| annotations.clone());
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(type_.as_str().to_owned()),
            ports: Some(vec![ServicePort {
                target_port: Some(IntOrString::Int(i32::from(ports::POSTGRES))),
                ..service_port(ports::POSTGRES_NAME, ports::POSTGRES)
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn service_port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
