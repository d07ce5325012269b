//! All objects of a cluster as they should be: made without a client, written by [`crate::apply`].

use api::settings::SettingsError;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
};
use kubernetes::slices::Route;

use crate::{
    build::{
        self,
        certificates::{CertificateError, Certificates},
        config_map, disruption_budget, pod, rbac, routes, secrets, services, stateful_set,
    },
    cluster::ValidatedCluster,
    dereference::Observed,
    plan::{self, Facts, Plan, template::InForce},
};

/// Everything that is written, in no order.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Identity of members.
    pub service_account: ServiceAccount,
    /// What they may do.
    pub role: Role,
    /// Gives it to them.
    pub role_binding: RoleBinding,
    /// The superuser's password.
    pub superuser: Secret,
    /// The application's password and addresses.
    pub app: Secret,
    /// Authority and certificates.
    pub certificates: Certificates,
    /// Stable host names.
    pub headless: Service,
    /// Leads to the master.
    pub write: Service,
    /// Leads to the followers.
    pub read: Service,
    /// The slices of both.
    pub routes: [Route; 2],
    /// The budget.
    pub disruption_budget: PodDisruptionBudget,
    /// The memory of templates.
    pub templates: ConfigMap,
    /// The members.
    pub stateful_set: StatefulSet,
    /// Claims that must grow, as they are.
    pub growing_claims: Vec<PersistentVolumeClaim>,
    /// Whether the record is to be made.
    pub create_record: bool,
}

/// What was decided, with what it was decided on.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What the plan rested on.
    pub facts: Facts,
    /// The next step.
    pub plan: Plan,
    /// The template in force.
    pub in_force: InForce,
}

/// Objects could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Certificates.
    #[error("cannot make certificates")]
    Certificates(#[source] CertificateError),
    /// Settings.
    #[error("cannot render the members' settings")]
    Settings(#[source] SettingsError),
}

/// Decides the next step of a cluster.
pub fn decide(cluster: &ValidatedCluster, observed: &Observed, facts: Facts) -> Decision {
    let memory = observed.templates.as_ref().and_then(|map| map.data.as_ref());
    let memory = memory.map(plan::template::Memory::from_data).unwrap_or_default();
    let in_force = plan::template::in_force(&facts, pod::template(cluster), &memory);
    finish(facts, in_force)
}

/// The same when what the spec asks for was refused by the API server: the last good template stays in force (K22).
/// `None` when there is none.
pub fn decide_without_change(observed: &Observed, facts: Facts) -> Option<Decision> {
    let memory = observed.templates.as_ref().and_then(|map| map.data.as_ref())?;
    let in_force = plan::template::kept(&plan::template::Memory::from_data(memory))?;
    Some(finish(facts, in_force))
}

fn finish(facts: Facts, in_force: InForce) -> Decision {
    let given_up = in_force.memory.bad.as_ref().map(|(hash, _)| hash.as_str());
    let plan = plan::plan(&facts, &in_force.hash, given_up);
    Decision { facts, plan, in_force }
}

/// Makes all objects.
pub fn prepare(
    cluster: &ValidatedCluster,
    observed: &Observed,
    decision: &Decision,
    now: Timestamp,
) -> Result<Prepared, BuildError> {
    let certificates =
        build::certificates::build(cluster, &observed.certificates, &decision.facts.certificates, now)
            .map_err(BuildError::Certificates)?;
    Ok(Prepared {
        service_account: rbac::service_account(cluster),
        role: rbac::role(cluster, &decision.plan.role_pods(&decision.facts)),
        role_binding: rbac::role_binding(cluster),
        superuser: secrets::superuser(cluster, observed.superuser.as_ref()),
        app: secrets::app(cluster, observed.app.as_ref(), &certificates.bundle),
        certificates,
        headless: services::headless(cluster),
        write: services::write(cluster),
        read: services::read(cluster),
        routes: routes::routes(cluster),
        disruption_budget: disruption_budget::build(cluster),
        templates: config_map::templates(cluster, decision.in_force.memory.to_data()),
        stateful_set: stateful_set::build(
            cluster,
            decision.plan.replicas,
            decision.in_force.template.clone(),
        ),
        growing_claims: growing(cluster, observed),
        create_record: record_is_to_be_made(observed),
    })
}

/// K15: a record is made only for a cluster that cannot have data. A lost record beside volumes is for people.
pub fn record_is_to_be_made(observed: &Observed) -> bool {
    matches!(observed.record, kubernetes::record::RecordRead::Missing)
        && observed.claims.is_empty()
        && observed.stateful_set.is_none()
}

/// Claims that are smaller than asked for.
fn growing(cluster: &ValidatedCluster, observed: &Observed) -> Vec<PersistentVolumeClaim> {
    let wanted = cluster.spec.storage.size;
    let smaller = |claim: &&PersistentVolumeClaim| {
        let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
        let size = requests.and_then(|requests| requests.get("storage")?.0.parse::<api::Size>().ok());
        size.is_some_and(|size| size < wanted)
    };
    observed.claims.iter().filter(smaller).cloned().collect()
}

/// Whether the StatefulSet's claim template differs from what is wanted, which only a new StatefulSet can change (K13).
pub fn claim_template_differs(there: &StatefulSet, wanted: &StatefulSet) -> bool {
    let size = |set: &StatefulSet| {
        let claim = set.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?;
        claim
            .spec
            .as_ref()?
            .resources
            .as_ref()?
            .requests
            .as_ref()?
            .get("storage")?
            .0
            .parse::<api::Size>()
            .ok()
    };
    size(there).zip(size(wanted)).is_some_and(|(there, wanted)| there != wanted)
}
