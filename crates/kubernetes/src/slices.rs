//! EndpointSlices of Services without selector: where `pgwrite` and `pgread` point (K1–K4).
//!
//! Decides whether a slice may be written: the leader replaces it on the resourceVersion of the slice whose
//! epoch it compared, and a slice that carries a higher epoch is never touched (S5,
//! `tests::an_older_leader_never_writes`). The operator makes an empty one when it is missing, and empties
//! one whose pod is gone; it never points a slice at anybody and never applies one.

use crate::{
    apply::FieldManager,
    call::{CallError, Calls, ErrorClass},
};
use ha::{Boot, Epoch};
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::api::PostParams;
use std::{collections::BTreeMap, net::IpAddr};

/// Label that ties a slice to its Service.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Label that keeps the EndpointSlice controllers away.
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "matriarch.dev";
/// The epoch under which a slice was written.
pub const EPOCH_ANNOTATION: &str = "matriarch.dev/epoch";
/// The boot of the leader that wrote it.
pub const BOOT_ANNOTATION: &str = "matriarch.dev/boot";

/// Conflicts in a row after which a write is given up as unknown: each one is a change by somebody else.
const ATTEMPTS: usize = 4;

/// One slice holds the addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// `spec.ipFamilies` and `addressType` spell it so.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// One Service's route: everything about its slices but who is in them.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The namespace.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// The Service port's *name*: kube-proxy matches by it (K2).
    pub port_name: String,
    /// The pods' port.
    pub port: u16,
    /// The PostgresCluster.
    pub owner: OwnerReference,
    /// Further labels, such as the cluster's.
    pub labels: BTreeMap<String, String>,
}

impl Route {
    /// The slice's name: `<service>-ipv4`, `<service>-ipv6`.
    pub fn slice_name(&self, family: Family) -> String {
        slice_name(&self.service, family)
    }
}

/// The name of a Service's slice.
pub fn slice_name(service: &str, family: Family) -> String {
    format!("{service}-{}", family.as_str().to_lowercase())
}

/// A pod that a route points at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// The pod's addresses, of any family.
    pub addresses: Vec<IpAddr>,
    /// The pod's node.
    pub node: String,
    /// The node's zone, when known.
    pub zone: Option<String>,
}

/// What a slice says.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceState {
    /// The epoch under which it was written; `None` when it carries none that can be read.
    pub epoch: Option<Epoch>,
    /// The boot of the leader that wrote it.
    pub boot: Option<Boot>,
    /// Pod UIDs and addresses in it.
    pub endpoints: Vec<(Option<String>, Vec<String>)>,
    slice: EndpointSlice,
}

impl SliceState {
    /// What a slice says, from a read or from a watch.
    pub fn of(slice: EndpointSlice) -> Self {
        let annotation = |key: &str| slice.metadata.annotations.as_ref()?.get(key);
        let endpoints = slice
            .endpoints
            .iter()
            .map(|endpoint| {
                let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
                (uid, endpoint.addresses.clone())
            })
            .collect();
        Self {
            epoch: annotation(EPOCH_ANNOTATION).and_then(|text| text.parse().ok()).map(Epoch),
            boot: annotation(BOOT_ANNOTATION).and_then(|text| text.parse().ok()),
            endpoints,
            slice,
        }
    }

    /// Whether it points at this very pod at one of these addresses, and at nothing else.
    pub fn points_only_at(&self, uid: &str, addresses: &[IpAddr]) -> bool {
        let ours: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        match self.endpoints.as_slice() {
            [(Some(there), at)] => there == uid && !at.is_empty() && at.iter().all(|a| ours.contains(a)),
            _ => false,
        }
    }

    /// Whether it points nowhere.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// Written now.
    Written,
    /// It already said so; nothing was written.
    Unchanged,
    /// A later leader has written it: this one has nothing to say there any more.
    Superseded {
        /// The epoch that it carries.
        by: Epoch,
    },
}

/// Slices over calls.
#[derive(Debug, Clone)]
pub struct Slices {
    calls: Calls,
    manager: FieldManager,
}

impl Slices {
    /// Slices written in the name of `manager`.
    pub fn new(calls: Calls, manager: FieldManager) -> Self {
        Self { calls, manager }
    }

    /// A fresh read; `None` when there is no slice.
    pub async fn read(&self, route: &Route, family: Family) -> Result<Option<SliceState>, CallError> {
        let name = route.slice_name(family);
        let read = self.calls.get::<EndpointSlice>(&route.namespace, &name).await?;
        Ok(read.map(SliceState::of))
    }

    /// Makes an empty slice when there is none. For the operator: agents' Roles name the object.
    pub async fn create_missing(&self, route: &Route, family: Family) -> Result<bool, CallError> {
        if self.read(route, family).await?.is_some() {
            return Ok(false);
        }
        match self.create(&build(route, family, None, None, &[])).await {
            Ok(()) => Ok(true),
            Err(error) if error.class() == ErrorClass::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Points the slice of `family` at `targets` under `epoch`, unless it carries a later epoch. For the
    /// leader; a deleted slice is made again. An error means that nobody knows what it says now.
    pub async fn publish(
        &self,
        route: &Route,
        family: Family,
        epoch: Epoch,
        boot: Boot,
        targets: &[Target],
    ) -> Result<Published, CallError> {
        self.write(route, family, epoch, Some(boot), targets, true).await
    }

    /// Empties the slice, unless it carries a later epoch. For a leader that leaves (K3), or one that may
    /// not lead any more.
    pub async fn retract(
        &self,
        route: &Route,
        family: Family,
        epoch: Epoch,
        boot: Boot,
    ) -> Result<Published, CallError> {
        self.write(route, family, epoch, Some(boot), &[], false).await
    }

    /// Empties a slice that was looked at, under its own epoch, if it has not changed since (K3). For the
    /// operator, when the targets' UID is gone or their address another's. False: it changed.
    pub async fn empty(&self, route: &Route, family: Family, seen: &SliceState) -> Result<bool, CallError> {
        if seen.is_empty() {
            return Ok(true);
        }
        let wanted = build(route, family, seen.epoch, seen.boot, &[]);
        match self.replace(seen, wanted).await {
            Ok(()) => Ok(true),
            Err(error) => match error.class() {
                ErrorClass::Conflict | ErrorClass::NotFound => Ok(false),
                _ => Err(error),
            },
        }
    }

    async fn write(
        &self,
        route: &Route,
        family: Family,
        epoch: Epoch,
        boot: Option<Boot>,
        targets: &[Target],
        create: bool,
    ) -> Result<Published, CallError> {
        let wanted = build(route, family, Some(epoch), boot, targets);
        let mut attempt = 1;
        loop {
            let written = match self.read(route, family).await? {
                Some(there) => {
                    if let Some(by) = there.epoch.filter(|there| *there > epoch) {
                        return Ok(Published::Superseded { by });
                    }
                    if says(&there.slice, &wanted) {
                        return Ok(Published::Unchanged);
                    }
                    self.replace(&there, wanted.clone()).await
                }
                None if create => self.create(&wanted).await,
                None => return Ok(Published::Unchanged),
            };
            match written {
                Ok(()) => return Ok(Published::Written),
                Err(error) => match error.class() {
                    ErrorClass::Conflict | ErrorClass::AlreadyExists | ErrorClass::NotFound
                        if attempt < ATTEMPTS =>
                    {
                        attempt += 1;
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    async fn create(&self, slice: &EndpointSlice) -> Result<(), CallError> {
        const CALL: &str = "create slice";
        let (namespace, _) = crate::call::place(CALL, slice)?;
        let api = self.calls.api::<EndpointSlice>(&namespace);
        self.calls.run(CALL, api.create(&self.params(), slice)).await.map(drop)
    }

    /// PUT on the very version that was compared; labels and annotations of others stay.
    async fn replace(&self, there: &SliceState, wanted: EndpointSlice) -> Result<(), CallError> {
        const CALL: &str = "replace slice";
        let (namespace, name) = crate::call::place(CALL, &wanted)?;
        let mut metadata = there.slice.metadata.clone();
        metadata.managed_fields = None;
        metadata.owner_references = wanted.metadata.owner_references;
        metadata.labels.get_or_insert_default().extend(wanted.metadata.labels.unwrap_or_default());
        metadata.annotations.get_or_insert_default().extend(wanted.metadata.annotations.unwrap_or_default());
        let slice = EndpointSlice { metadata, ..wanted };
        let api = self.calls.api::<EndpointSlice>(&namespace);
        self.calls.run(CALL, api.replace(&name, &self.params(), &slice)).await.map(drop)
    }

    fn params(&self) -> PostParams {
        PostParams { field_manager: Some(self.manager.as_str().to_owned()), ..PostParams::default() }
    }
}

/// The slice of `family` as it should be.
pub fn build(
    route: &Route,
    family: Family,
    epoch: Option<Epoch>,
    boot: Option<Boot>,
    targets: &[Target],
) -> EndpointSlice {
    let mut labels = route.labels.clone();
    labels.insert(SERVICE_LABEL.to_owned(), route.service.clone());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    let mut annotations = BTreeMap::new();
    annotations.extend(epoch.map(|epoch| (EPOCH_ANNOTATION.to_owned(), epoch.to_string())));
    annotations.extend(boot.map(|boot| (BOOT_ANNOTATION.to_owned(), boot.to_string())));
    let mut endpoints: Vec<Endpoint> =
        targets.iter().filter_map(|target| endpoint(route, family, target)).collect();
    endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    EndpointSlice {
        address_type: family.as_str().to_owned(),
        endpoints,
        metadata: ObjectMeta {
            name: Some(route.slice_name(family)),
            namespace: Some(route.namespace.clone()),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![route.owner.clone()]),
            ..ObjectMeta::default()
        },
        ports: Some(vec![EndpointPort {
            name: Some(route.port_name.clone()),
            port: Some(i32::from(route.port)),
            protocol: Some("TCP".to_owned()),
            ..EndpointPort::default()
        }]),
    }
}

fn endpoint(route: &Route, family: Family, target: &Target) -> Option<Endpoint> {
    let address = target.addresses.iter().find(|address| Family::of(address) == family)?;
    Some(Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
        }),
        node_name: Some(target.node.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: Some(target.pod.clone()),
            namespace: Some(route.namespace.clone()),
            uid: Some(target.uid.clone()),
            ..ObjectReference::default()
        }),
        zone: target.zone.clone(),
        ..Endpoint::default()
    })
}

/// Whether `there` already says everything that `wanted` says.
fn says(there: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    fn holds(there: Option<&BTreeMap<String, String>>, wanted: Option<&BTreeMap<String, String>>) -> bool {
        wanted.is_none_or(|wanted| {
            wanted.iter().all(|(key, value)| there.and_then(|there| there.get(key)) == Some(value))
        })
    }
    there.endpoints == wanted.endpoints
        && there.ports == wanted.ports
        && there.metadata.owner_references == wanted.metadata.owner_references
        && holds(there.metadata.labels.as_ref(), wanted.metadata.labels.as_ref())
        && holds(there.metadata.annotations.as_ref(), wanted.metadata.annotations.as_ref())
}

#[cfg(test)]
mod tests;
