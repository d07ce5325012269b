//! The DNS names that certificates of a cluster carry.
//!
//! Short and long forms of each, because clients use both and verification is exact. A wildcard stands for
//! the pods, so that growing a cluster re-issues nothing; libpq, OpenSSL and rustls all take it for exactly
//! one label.

/// Names of PostgreSQL's server certificate: every Service in `services`, the pods under the headless
/// Service `<cluster>-pods`, and `localhost`.
pub fn server_names(cluster: &str, namespace: &str, services: &[&str]) -> Vec<String> {
    let mut names = Vec::new();
    for service in services {
        push_service(&mut names, service, namespace);
    }
    push_pods(&mut names, cluster, namespace);
    names.push("localhost".to_owned());
    names
}

/// Names of a peer certificate: the pods under the headless Service.
pub fn peer_names(cluster: &str, namespace: &str) -> Vec<String> {
    let mut names = Vec::new();
    push_pods(&mut names, cluster, namespace);
    names
}

/// The host name of one member, `<pod>.<cluster>-pods.<namespace>.svc`: what certificates are checked
/// against, whatever address was dialled (K5).
pub fn pod_name(pod: &str, cluster: &str, namespace: &str) -> String {
    format!("{pod}.{cluster}-pods.{namespace}.svc")
}

fn push_service(names: &mut Vec<String>, service: &str, namespace: &str) {
    names.push(service.to_owned());
    names.push(format!("{service}.{namespace}"));
    names.push(format!("{service}.{namespace}.svc"));
    names.push(format!("{service}.{namespace}.svc.cluster.local"));
}

fn push_pods(names: &mut Vec<String>, cluster: &str, namespace: &str) {
    let service = format!("{cluster}-pods");
    names.push(format!("*.{service}"));
    names.push(format!("*.{service}.{namespace}"));
    names.push(format!("*.{service}.{namespace}.svc"));
    names.push(format!("*.{service}.{namespace}.svc.cluster.local"));
}

#[cfg(test)]
mod tests {
    #[test]
    fn services_come_in_four_forms_and_pods_as_wildcards() {
        let names = super::server_names("pg", "shop", &["pgwrite"]);
        assert!(names.contains(&"pgwrite.shop.svc.cluster.local".to_owned()));
        assert!(names.contains(&"*.pg-pods.shop.svc".to_owned()));
        assert_eq!(super::pod_name("pg-0", "pg", "shop"), "pg-0.pg-pods.shop.svc");
    }
}
