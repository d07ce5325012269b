//! The pod of a member.
//!
//! A stock image of PostgreSQL under pod security `restricted` with a read-only root (K9): everything that must be
//! written is a volume, the agent arrives by an init container, `/etc/passwd` is generated because initdb and libpq fail
//! for a user without an entry (P26), and the token is mounted in this one container only. Liveness asks PID 1 and
//! nothing else, readiness asks the agent, and there is no startup probe (K7).

use api::names::{self, CONTAINER, DATA_CLAIM, DEFAULT_POOL, INSTALL_CONTAINER, labels, paths, ports};
use k8s_openapi::{
    DeepMerge as _,
    api::core::v1::{
        Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction,
        ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
        SeccompProfile, SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use crate::{cluster::ValidatedCluster, digest, memory};

mod placement;
mod token;

/// Time from SIGTERM to SIGKILL, in seconds: a checkpoint of a large buffer pool and an unfinished archive must fit.
pub const TERMINATION_GRACE_SECONDS: i64 = 1800;

/// Memory that is requested at least when the user says nothing: PostgreSQL's own defaults fit (K8).
const DEFAULT_MEMORY: u64 = 512 << 20;
/// CPU that is requested when the user says nothing: without any share a busy neighbour would look like a dead master.
const DEFAULT_CPU: &str = "100m";

const VOLUME_BIN: &str = "matriarch-bin";
const VOLUME_ETC: &str = "matriarch-etc";
const VOLUME_TLS: &str = "matriarch-tls";
const VOLUME_SHM: &str = "shm";
const VOLUME_TMP: &str = "tmp";
const VOLUME_RUN: &str = "run";
const VOLUME_TOKEN: &str = "matriarch-token";

/// The template of every member's pod, the user's template merged over it (K22), with [`inputs_hash`] as an annotation.
pub fn template(cluster: &ValidatedCluster) -> PodTemplateSpec {
    let mut template = PodTemplateSpec { metadata: Some(metadata(cluster)), spec: Some(pod(cluster)) };
    if let Some(patch) = &cluster.pod_template {
        template.merge_from(patch.clone());
    }
    let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
    annotations.insert(labels::TEMPLATE_HASH.to_owned(), inputs_hash(cluster));
    template
}

/// The hash of everything in a cluster that needs a new pod when it changes. It leaves out what this code adds by
/// itself, so that another version of the operator, which may build another template, replaces no pod (K12); for the same
/// reason neither the order nor the form of the inputs may ever change (snapshot in `tests/build.rs`).
pub fn inputs_hash(cluster: &ValidatedCluster) -> String {
    let spec = &cluster.spec;
    let inputs = serde_json::json!([
        cluster.identity,
        cluster.pinned.version,
        cluster.image,
        cluster.pinned.agent_image,
        cluster.restarted_at,
        spec.image_pull_policy,
        spec.resources,
        spec.scheduling,
        spec.security_context,
        spec.pod_template,
    ]);
    digest::short(&inputs.to_string())
}

/// The hash that [`template`] wrote; pods carry it too, so it tells which template a pod has.
pub fn hash_of(metadata: Option<&ObjectMeta>) -> Option<&str> {
    metadata?.annotations.as_ref()?.get(labels::TEMPLATE_HASH).map(String::as_str)
}

fn metadata(cluster: &ValidatedCluster) -> ObjectMeta {
    let mut pod_labels = labels::of_cluster(&cluster.name);
    pod_labels.extend(labels::pool_selector(&cluster.name, DEFAULT_POOL));
    let mut annotations = std::collections::BTreeMap::new();
    annotations.insert("kubectl.kubernetes.io/default-container".to_owned(), CONTAINER.to_owned());
    if let Some(at) = &cluster.restarted_at {
        annotations.insert(labels::RESTARTED_AT.to_owned(), at.clone());
    }
    ObjectMeta { labels: Some(pod_labels), annotations: Some(annotations), ..ObjectMeta::default() }
}

fn pod(cluster: &ValidatedCluster) -> PodSpec {
    let scheduling = cluster.spec.scheduling.clone().unwrap_or_default();
    let security = &cluster.spec.security_context;
    PodSpec {
        service_account_name: Some(names::member_role(&cluster.name)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(TERMINATION_GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: security.run_as_user,
            run_as_group: security.run_as_group,
            fs_group: security.fs_group,
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        init_containers: Some(vec![install(cluster)]),
        containers: vec![postgres(cluster)],
        volumes: Some(vec![
            empty(VOLUME_BIN, None),
            empty(VOLUME_ETC, None),
            empty(VOLUME_TLS, Some("Memory")),
            empty(VOLUME_SHM, Some("Memory")),
            empty(VOLUME_TMP, None),
            empty(VOLUME_RUN, None),
            token::volume(VOLUME_TOKEN),
        ]),
        topology_spread_constraints: Some(placement::spread(cluster, &scheduling)),
        node_selector: (!scheduling.node_selector.is_empty()).then_some(scheduling.node_selector),
        tolerations: (!scheduling.tolerations.is_empty()).then_some(scheduling.tolerations),
        affinity: scheduling.affinity,
        priority_class_name: scheduling.priority_class_name,
        ..PodSpec::default()
    }
}

/// Copies the agent out of its own image and writes `passwd`, so that any image of PostgreSQL will do.
fn install(cluster: &ValidatedCluster) -> Container {
    let command = [paths::AGENT_IN_IMAGE, "install", "--to", paths::BIN, "--passwd", paths::PASSWD];
    Container {
        name: INSTALL_CONTAINER.to_owned(),
        image: Some(cluster.pinned.agent_image.clone()),
        image_pull_policy: Some(cluster.spec.image_pull_policy.as_str().to_owned()),
        command: Some(command.map(str::to_owned).to_vec()),
        security_context: Some(restricted()),
        resources: Some(requests(&[("cpu", "10m"), ("memory", "32Mi")])),
        volume_mounts: Some(vec![mount(VOLUME_BIN, paths::BIN), mount(VOLUME_ETC, paths::ETC)]),
        ..Container::default()
    }
}

fn postgres(cluster: &ValidatedCluster) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(cluster.image.clone()),
        image_pull_policy: Some(cluster.spec.image_pull_policy.as_str().to_owned()),
        command: Some(vec![paths::AGENT.to_owned(), "supervise".to_owned()]),
        env: Some(environment(cluster)),
        ports: Some(vec![
            port(ports::POSTGRES_NAME, ports::POSTGRES),
            port(ports::LIVE_NAME, ports::LIVE),
            port(ports::HTTP_NAME, ports::HTTP),
            port(ports::PEER_NAME, ports::PEER),
        ]),
        liveness_probe: Some(Probe {
            termination_grace_period_seconds: Some(1),
            ..probe("/livez", ports::LIVE_NAME, 3)
        }),
        readiness_probe: Some(probe("/readyz", ports::HTTP_NAME, 2)),
        resources: Some(resources(cluster)),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![
            mount(DATA_CLAIM, paths::VOLUME),
            VolumeMount { read_only: Some(true), ..mount(VOLUME_BIN, paths::BIN) },
            VolumeMount {
                read_only: Some(true),
                sub_path: Some("passwd".to_owned()),
                ..mount(VOLUME_ETC, "/etc/passwd")
            },
            VolumeMount {
                read_only: Some(true),
                sub_path: Some("group".to_owned()),
                ..mount(VOLUME_ETC, "/etc/group")
            },
            mount(VOLUME_TLS, paths::TLS),
            mount(VOLUME_SHM, "/dev/shm"),
            mount(VOLUME_TMP, "/tmp"),
            mount(VOLUME_RUN, paths::SOCKET),
            VolumeMount { read_only: Some(true), ..mount(VOLUME_TOKEN, paths::SERVICE_ACCOUNT) },
        ]),
        ..Container::default()
    }
}

fn environment(cluster: &ValidatedCluster) -> Vec<EnvVar> {
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let value =
        |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() };
    vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_UID", "metadata.uid"),
        field("POD_IP", "status.podIP"),
        field("NODE_NAME", "spec.nodeName"),
        value("CLUSTER_NAME", cluster.name.clone()),
        value("CLUSTER_UID", cluster.identity.clone()),
        value("PGDATA", paths::PGDATA.to_owned()),
        value("MATRIARCH_TERMINATION_GRACE_SECONDS", grace_seconds(cluster).to_string()),
    ]
}

/// The kubelet's, which the user's template may change: the supervisor's last kill must come before the kubelet's.
fn grace_seconds(cluster: &ValidatedCluster) -> i64 {
    let users = cluster.pod_template.as_ref().and_then(|template| template.spec.as_ref());
    users.and_then(|pod| pod.termination_grace_period_seconds).unwrap_or(TERMINATION_GRACE_SECONDS)
}

fn resources(cluster: &ValidatedCluster) -> ResourceRequirements {
    let Some(resources) = &cluster.spec.resources else {
        let (needed, _) = memory::needed(&cluster.parameters);
        return requests(&[("cpu", DEFAULT_CPU), ("memory", &memory::mebibytes(needed.max(DEFAULT_MEMORY)))]);
    };
    let quantities = |map: &std::collections::BTreeMap<String, api::Scalar>| {
        (!map.is_empty())
            .then(|| map.iter().map(|(name, amount)| (name.clone(), Quantity(amount.to_string()))).collect())
    };
    ResourceRequirements {
        requests: quantities(&resources.requests),
        limits: quantities(&resources.limits),
        ..ResourceRequirements::default()
    }
}

fn requests(amounts: &[(&str, &str)]) -> ResourceRequirements {
    let amounts = amounts.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())));
    ResourceRequirements { requests: Some(amounts.collect()), ..ResourceRequirements::default() }
}

fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    }
}

fn probe(path: &str, port: &str, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(1),
        timeout_seconds: Some(1),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn empty(name: &str, medium: Option<&str>) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(str::to_owned),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}
