//! The one place where names are made: objects, labels, annotations, ports, paths.
//!
//! Operator and agent must spell each alike, so neither may write such a string itself. A cluster's name has at most
//! [`MAX_CLUSTER_NAME`] characters, which keeps every derived name within Kubernetes' limit of 63 (test below).

pub mod labels;
pub mod paths;
pub mod ports;

/// The longest name of a PostgresCluster (K23).
pub const MAX_CLUSTER_NAME: usize = 40;
/// The pool that every cluster has; its StatefulSet has the cluster's own name.
pub const DEFAULT_POOL: &str = "default";
/// The claim template of the data volume; claims are called `pgdata-<pod>`.
pub const DATA_CLAIM: &str = "pgdata";
/// The container that runs the supervisor, the agent and PostgreSQL.
pub const CONTAINER: &str = "postgres";
/// The init container that copies the agent into the pod.
pub const INSTALL_CONTAINER: &str = "install-agent";
/// The key in the settings ConfigMap that holds [`crate::MemberSettings`].
pub const SETTINGS_KEY: &str = "settings.json";
/// The finalizer that orders a cluster's deletion (K15).
pub const FINALIZER: &str = "matriarch.dev/ordered-deletion";

/// The StatefulSet of the default pool.
pub fn stateful_set(cluster: &str) -> String {
    cluster.to_owned()
}

/// The pod with this ordinal of the default pool.
pub fn pod(cluster: &str, ordinal: u32) -> String {
    format!("{cluster}-{ordinal}")
}

/// The ordinal in a pod's name, when the pod belongs to the cluster's default pool.
pub fn ordinal(cluster: &str, pod: &str) -> Option<u32> {
    let digits = pod.strip_prefix(cluster)?.strip_prefix('-')?;
    if digits.len() > 1 && digits.starts_with('0') || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// The claim of this pod's data volume.
pub fn data_claim(pod: &str) -> String {
    format!("{DATA_CLAIM}-{pod}")
}

/// The headless Service that gives members stable host names.
pub fn headless_service(cluster: &str) -> String {
    format!("{cluster}-pods")
}

/// The default name of the Service that leads to the master.
pub fn write_service(cluster: &str) -> String {
    format!("{cluster}-pgwrite")
}

/// The default name of the Service that leads to the followers.
pub fn read_service(cluster: &str) -> String {
    format!("{cluster}-pgread")
}

/// The EndpointSlice of a Service for one IP family; `family` is `IPv4` or `IPv6` (K2).
pub fn endpoint_slice(service: &str, family: &str) -> String {
    format!("{service}-{}", family.to_ascii_lowercase())
}

/// The Lease that carries the record.
pub fn lease(cluster: &str) -> String {
    cluster.to_owned()
}

/// The ConfigMap with the settings for members.
pub fn settings(cluster: &str) -> String {
    format!("{cluster}-settings")
}

/// The ConfigMap in which the operator keeps the last good pod template (K12).
pub fn last_good_template(cluster: &str) -> String {
    format!("{cluster}-template")
}

/// The Secret with the superuser's password.
pub fn superuser_secret(cluster: &str) -> String {
    format!("{cluster}-superuser")
}

/// The Secret that applications use.
pub fn app_secret(cluster: &str) -> String {
    format!("{cluster}-app")
}

/// The Secret with the certificate authority and its key; members cannot read it.
pub fn ca_secret(cluster: &str) -> String {
    format!("{cluster}-ca")
}

/// The Secret with PostgreSQL's server certificate.
pub fn server_secret(cluster: &str) -> String {
    format!("{cluster}-server-tls")
}

/// The Secret with the certificate of the channel between agents, which proves membership (K10).
pub fn peer_secret(cluster: &str) -> String {
    format!("{cluster}-peer-tls")
}

/// The Secret with the client certificate for replication.
pub fn client_secret(cluster: &str) -> String {
    format!("{cluster}-client-tls")
}

/// The ServiceAccount, Role and RoleBinding of members.
pub fn member_role(cluster: &str) -> String {
    format!("{cluster}-member")
}

/// The PodDisruptionBudget of the default pool.
pub fn disruption_budget(cluster: &str) -> String {
    cluster.to_owned()
}

/// The host name of a member within the cluster's DNS; the TLS name of replication connections (K5).
pub fn member_host(cluster: &str, namespace: &str, pod: &str) -> String {
    format!("{pod}.{}.{namespace}.svc", headless_service(cluster))
}

/// The host name of a Service.
pub fn service_host(service: &str, namespace: &str) -> String {
    format!("{service}.{namespace}.svc")
}

/// The common name in the peer certificate of a cluster, which the other side checks.
pub fn peer_common_name(cluster: &str, namespace: &str) -> String {
    format!("peer:{namespace}/{cluster}")
}

/// The common name in the client certificate, mapped to replication roles by `pg_ident`.
pub const REPLICATION_COMMON_NAME: &str = "matriarch-replication";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_names_fit_within_63_characters() {
        let cluster = "c".repeat(MAX_CLUSTER_NAME);
        let pod = pod(&cluster, 99);
        for name in [
            data_claim(&pod),
            headless_service(&cluster),
            endpoint_slice(&write_service(&cluster), "IPv4"),
            settings(&cluster),
            superuser_secret(&cluster),
            server_secret(&cluster),
            client_secret(&cluster),
            member_role(&cluster),
            format!("{}-{}", stateful_set(&cluster), "0123456789"),
        ] {
            assert!(name.len() <= 63, "{name}");
        }
    }

    #[test]
    fn only_own_pods_have_an_ordinal() {
        assert_eq!(ordinal("pg", "pg-0"), Some(0));
        assert_eq!(ordinal("pg", "pg-12"), Some(12));
        for other in ["pg", "pg-", "pg-a", "pg-01", "pgx-1", "pg-reporting-0", "pg--1", "pg-+1"] {
            assert_eq!(ordinal("pg", other), None, "{other}");
        }
    }
}
