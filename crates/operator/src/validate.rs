//! From what a user wrote to what is built, without any client.
//!
//! Decides what the schema could not: syntax of parameters, lines of `pg_hba.conf`, the user's pod template, and which
//! version and images a cluster has (K24). What it refuses leaves the running cluster as it was. The API server may be
//! older than this operator's schema, so nothing is taken for granted that a bound there says.
//! `tests/validate.rs` is the table of what is refused, with each message.

use std::collections::BTreeMap;

use api::{
    Pinned, PostgresCluster, PostgresClusterSpec, names,
    names::labels,
    parameters::{self, hba},
    settings::ForcedPromotion,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt as _;
use serde_json::Value;

use crate::{
    cluster::{ValidatedCluster, owner_reference},
    config::Defaults,
    memory,
};

/// Why a spec is refused. The text is what the user sees in the condition and in the Event.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// An object that no API server made.
    #[error("the object has no {0}")]
    Incomplete(&'static str),
    /// A name that cannot be the root of other names.
    #[error("metadata.name: {name:?} must be a DNS label of at most 40 characters that begins with a letter")]
    Name {
        /// The name.
        name: String,
    },
    /// The version of an existing cluster cannot change.
    #[error(
        "version: {wanted} was asked for, but this cluster is {pinned}; create a new cluster of the other version"
    )]
    VersionChange {
        /// What the spec says.
        wanted: i32,
        /// What the cluster is.
        pinned: i32,
    },
    /// No image is known.
    #[error(
        "version: the operator has no image for PostgreSQL {major}; it has images for {known}, or write image"
    )]
    NoImage {
        /// The version.
        major: i32,
        /// Those that have one.
        known: String,
    },
    /// More acknowledgements than followers.
    #[error(
        "durability.acks: {acks} acknowledgements need more than {instances} instances; write acks: {} or less, or instances: {} or more", .instances - 1, .acks + 1
    )]
    TooManyAcks {
        /// Acknowledgements.
        acks: i32,
        /// Members.
        instances: i32,
    },
    /// A parameter.
    #[error(transparent)]
    Parameter(parameters::ParameterError),
    /// More memory than the limit allows.
    #[error("{0}")]
    Memory(String),
    /// A line of `pg_hba.conf`.
    #[error("postgres.hba[{index}]: {why}")]
    Hba {
        /// Which line.
        index: usize,
        /// What is wrong.
        why: hba::Refused,
    },
    /// Two Services of one name.
    #[error("services: {name} would be two Services; choose another name")]
    ServiceName {
        /// The name.
        name: String,
    },
    /// The annotation that forces a promotion is none.
    #[error(
        "metadata.annotations[matriarch.dev/promote]: {why}; write for example {{\"member\": \"pg-1\", \"epoch\": 7, \"allowDataLoss\": true}}, with the epoch from the status, or remove it"
    )]
    Promote {
        /// What is wrong.
        why: String,
    },
    /// The pod template is none.
    #[error("podTemplate: is not a pod template: {why}")]
    PodTemplate {
        /// What the decoder says.
        why: String,
    },
    /// The pod template would break what members rest on.
    #[error("podTemplate: {field} belongs to the operator; remove it")]
    PodTemplateField {
        /// Which field.
        field: &'static str,
    },
}

/// Accepts or refuses a cluster. `identity` is the UID in its record, when it has one.
pub fn validate(
    cluster: &PostgresCluster,
    identity: Option<&str>,
    defaults: &Defaults,
    repin_agent: bool,
) -> Result<ValidatedCluster, Refusal> {
    let spec = &cluster.spec;
    let name = cluster.name_any();
    let namespace = cluster.namespace().ok_or(Refusal::Incomplete("metadata.namespace"))?;
    let uid = cluster.uid().ok_or(Refusal::Incomplete("metadata.uid"))?;
    let owner = owner_reference(cluster).ok_or(Refusal::Incomplete("metadata.uid"))?;
    check_name(&name)?;
    if spec.durability.mode == api::DurabilityMode::Quorum
        && spec.instances > 1
        && spec.durability.acks >= spec.instances
    {
        return Err(Refusal::TooManyAcks { acks: spec.durability.acks, instances: spec.instances });
    }
    let parameters: BTreeMap<String, String> =
        spec.postgres.parameters.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
    parameters::check_all(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        .map_err(Refusal::Parameter)?;
    if let Some(why) = memory::refusal(spec, &parameters) {
        return Err(Refusal::Memory(why));
    }
    for (index, line) in spec.postgres.hba.iter().enumerate() {
        hba::check(line).map_err(|why| Refusal::Hba { index, why })?;
    }
    let (pinned, image) = pin(cluster, defaults, repin_agent)?;
    let validated = ValidatedCluster {
        identity: identity.unwrap_or(&uid).to_owned(),
        generation: cluster.metadata.generation.unwrap_or_default(),
        pod_template: pod_template(spec)?,
        restarted_at: cluster.annotations().get(labels::RESTARTED_AT).cloned(),
        promote: promote(cluster)?,
        rotate_ca: cluster.annotations().get(labels::ROTATE_CA).cloned(),
        spec: spec.clone(),
        name,
        namespace,
        uid,
        pinned,
        image,
        parameters,
        owner,
    };
    check_services(&validated)?;
    Ok(validated)
}

/// What the annotation asks for. Half an order is none: data is lost by it.
fn promote(cluster: &PostgresCluster) -> Result<Option<ForcedPromotion>, Refusal> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Promote {
        member: String,
        epoch: u64,
        allow_data_loss: bool,
    }
    let Some(text) = cluster.annotations().get(labels::PROMOTE) else { return Ok(None) };
    let Promote { member, epoch, allow_data_loss } =
        serde_json::from_str(text).map_err(|error| Refusal::Promote { why: error.to_string() })?;
    if !allow_data_loss {
        return Err(Refusal::Promote { why: "allowDataLoss is not true".to_owned() });
    }
    Ok(Some(ForcedPromotion { member, epoch }))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = name.len() <= names::MAX_CLUSTER_NAME
        && name.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && name.bytes().all(word)
        && !name.ends_with('-');
    if good { Ok(()) } else { Err(Refusal::Name { name: name.to_owned() }) }
}

fn check_services(cluster: &ValidatedCluster) -> Result<(), Refusal> {
    let (write, read) = (cluster.write_service(), cluster.read_service());
    let headless = names::headless_service(&cluster.name);
    for name in [&write, &read] {
        if *name == headless {
            return Err(Refusal::ServiceName { name: name.clone() });
        }
    }
    if write == read { Err(Refusal::ServiceName { name: write }) } else { Ok(()) }
}

/// What was chosen before stays (K24). What the spec says wins over it but is not pinned, or taking it back would not
/// undo it. Returns the choices and the image in force.
fn pin(
    cluster: &PostgresCluster,
    defaults: &Defaults,
    repin_agent: bool,
) -> Result<(Pinned, String), Refusal> {
    let before = cluster.status.as_ref().and_then(|status| status.pinned.as_ref());
    let version = match (cluster.spec.version, before) {
        (Some(wanted), Some(before)) if wanted != before.version => {
            return Err(Refusal::VersionChange { wanted, pinned: before.version });
        }
        (Some(wanted), _) => wanted,
        (None, Some(before)) => before.version,
        (None, None) => defaults.major,
    };
    let chosen = before.and_then(|before| before.image.clone());
    let (pinned, image) = match (&cluster.spec.image, chosen) {
        (Some(image), chosen) => (chosen, image.clone()),
        (None, Some(chosen)) => (Some(chosen.clone()), chosen),
        (None, None) => {
            let default = defaults.images.get(&version).cloned().ok_or_else(|| Refusal::NoImage {
                major: version,
                known: defaults.images.keys().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            })?;
            (Some(default.clone()), default)
        }
    };
    let agent_image = match before {
        Some(before) if !repin_agent && !before.agent_image.is_empty() => before.agent_image.clone(),
        _ => defaults.agent_image.clone(),
    };
    Ok((Pinned { version, image: pinned, agent_image }, image))
}

/// K22: a template may add and replace, but not what members rest on.
fn pod_template(spec: &PostgresClusterSpec) -> Result<Option<PodTemplateSpec>, Refusal> {
    let Some(value) = &spec.pod_template else { return Ok(None) };
    let template: PodTemplateSpec = serde_json::from_value(value.clone())
        .map_err(|error| Refusal::PodTemplate { why: error.to_string() })?;
    let understood = serde_json::to_value(&template).unwrap_or_default();
    if let Some(field) = unknown_field("", value, &understood) {
        return Err(Refusal::PodTemplate { why: format!("{field} is no field of a pod") });
    }
    let pod = template.spec.as_ref();
    let refused = |field| Err(Refusal::PodTemplateField { field });
    if pod.is_some_and(|pod| pod.service_account_name.is_some() || pod.service_account.is_some()) {
        return refused("spec.serviceAccountName");
    }
    if pod.and_then(|pod| pod.restart_policy.as_deref()).is_some_and(|policy| policy != "Always") {
        return refused("spec.restartPolicy");
    }
    if pod.and_then(|pod| pod.hostname.as_ref()).is_some()
        || pod.and_then(|pod| pod.subdomain.as_ref()).is_some()
    {
        return refused("spec.hostname");
    }
    let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    let reserved = [labels::CLUSTER, labels::POOL, labels::ROLE];
    if labels.is_some_and(|labels| reserved.iter().any(|key| labels.contains_key(*key))) {
        return refused("metadata.labels role, matriarch.dev/cluster or matriarch.dev/pool");
    }
    let main = pod.into_iter().flat_map(|pod| &pod.containers).find(|one| one.name == names::CONTAINER);
    if main.is_some_and(|main| main.command.is_some() || main.args.is_some()) {
        return refused("the command of container postgres");
    }
    Ok(Some(template))
}

/// The first field of `written` that the typed form lost: a misspelt field must not be dropped in silence.
fn unknown_field(path: &str, written: &Value, understood: &Value) -> Option<String> {
    let says_nothing = |value: &Value| match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            written.iter().filter(|(_, value)| !says_nothing(value)).find_map(|(name, value)| {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match understood.get(name) {
                    Some(understood) => unknown_field(&path, value, understood),
                    None => Some(path),
                }
            })
        }
        (Value::Array(written), Value::Array(understood)) => {
            written.iter().zip(understood).enumerate().find_map(|(index, (written, understood))| {
                unknown_field(&format!("{path}[{index}]"), written, understood)
            })
        }
        _ => None,
    }
}
