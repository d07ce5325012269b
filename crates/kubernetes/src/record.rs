//! The record: one Lease per cluster, changed only by compare-and-swap (ha-protocol §2, K20).
//!
//! Decides what a read or a write of the Lease proves. It must never take silence for an answer, never
//! create a record for an agent, and never write on any other version than that of the very snapshot that
//! the decision was made on: a write takes that [`Snapshot`] by reference.

use crate::{
    apply::FieldManager,
    call::{CallError, Calls, ErrorClass},
};
use ha::{Instant, Record, RecordView, Version};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube::api::PostParams;
use std::{collections::BTreeMap, error::Error, sync::Arc};
use thiserror::Error;

/// The annotation that holds the authoritative whole as JSON.
pub const RECORD_ANNOTATION: &str = "matriarch.dev/record";

/// `spec.leaseDurationSeconds` in quorum mode, where it means nothing to the protocol: three renewals.
const DURATION_SECONDS: i32 = 30;

/// One version of the record, with all that a compare-and-swap on it needs.
#[derive(Debug, Clone)]
pub struct Snapshot {
    record: Box<Record>,
    version: Version,
    lease_uid: String,
    renewed_at: Option<Timestamp>,
    lease: Arc<Lease>,
}

impl Snapshot {
    /// The content.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The Lease's resourceVersion.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The Lease's UID.
    pub fn lease_uid(&self) -> &str {
        &self.lease_uid
    }

    /// When its writer last renewed it, by *its* wall clock: for people, never compared with another clock.
    pub fn renewed_at(&self) -> Option<Timestamp> {
        self.renewed_at
    }
}

/// What a read proves.
#[derive(Debug, Clone)]
pub enum RecordRead {
    /// This is the record, or was a moment ago.
    Known(Snapshot),
    /// The API server says that there is none: unknown, never free.
    Missing,
    /// There is a Lease, and it is not as any of us would have written it.
    Tampered {
        /// What is wrong.
        why: String,
    },
    /// Nothing was learned.
    Unknown {
        /// Why not.
        why: String,
        /// 401 or 403: the client is to be rebuilt once (K11).
        denied: bool,
    },
}

impl RecordRead {
    /// What a Lease says, from a read or from a watch.
    pub fn of(lease: Lease) -> Self {
        match snapshot(lease) {
            Ok(snapshot) => Self::Known(snapshot),
            Err(why) => Self::Tampered { why: chain(&why) },
        }
    }

    fn of_error(error: &CallError) -> Self {
        Self::Unknown { why: chain(error), denied: error.class() == ErrorClass::Denied }
    }

    /// The form that decisions are made on. `confirmed_at` is the start of the request that read it,
    /// `changed_at` when this observer first saw this version.
    pub fn view(&self, confirmed_at: Instant, changed_at: Instant) -> RecordView {
        match self {
            Self::Known(snapshot) => RecordView::Known {
                record: snapshot.record.clone(),
                version: snapshot.version.clone(),
                lease_uid: snapshot.lease_uid.clone(),
                confirmed_at,
                changed_at,
            },
            Self::Missing => RecordView::Missing,
            Self::Tampered { why } => RecordView::Tampered { why: why.clone() },
            Self::Unknown { why, .. } => RecordView::Unknown { why: why.clone() },
        }
    }
}

/// What a compare-and-swap proves.
#[derive(Debug, Clone)]
pub enum Swapped {
    /// The record has this content; here is its new version.
    Won(Snapshot),
    /// It has not: this is what a fresh read after the refusal showed.
    Lost(RecordRead),
    /// The API server refused the content itself (400, 422). Nothing was written.
    Refused {
        /// What it said.
        why: String,
    },
    /// Nobody knows; the write may even arrive later. Read again before deciding anything.
    Unknown {
        /// Why.
        why: String,
        /// 401 or 403: the client is to be rebuilt once (K11).
        denied: bool,
    },
}

/// What became of creating the record.
#[derive(Debug, Clone)]
pub enum Created {
    /// Made now, uninitialised.
    Made(Snapshot),
    /// There was one already; this is what it says.
    Existed(RecordRead),
}

/// A Lease that does not hold a record of ours.
#[derive(Debug, Error)]
pub enum Tampering {
    /// The annotation is gone.
    #[error("the Lease has no annotation {RECORD_ANNOTATION}")]
    NoAnnotation,
    /// The annotation is no record.
    #[error("the annotation {RECORD_ANNOTATION} is not a record")]
    Parse(#[source] serde_json::Error),
    /// The spec does not mirror the annotation.
    #[error("spec.{field} is {spec:?} where the record says {record:?}")]
    Mirror {
        /// Which field.
        field: &'static str,
        /// Its value.
        spec: String,
        /// What it should be.
        record: String,
    },
    /// The Lease was deleted and made anew with an old annotation.
    #[error("the Lease has UID {lease:?} where the record says {record:?}")]
    OtherLease {
        /// The Lease's own.
        lease: String,
        /// The recorded one.
        record: String,
    },
    /// Not an object of an API server.
    #[error("the Lease has no {0}")]
    NoMetadata(&'static str),
}

/// The record of one cluster.
#[derive(Debug, Clone)]
pub struct RecordStore {
    calls: Calls,
    namespace: String,
    name: String,
}

impl RecordStore {
    /// The record in the Lease `name`, which is the cluster's name.
    pub fn new(calls: Calls, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { calls, namespace: namespace.into(), name: name.into() }
    }

    /// A fresh read (quorum read, never a cache).
    pub async fn read(&self) -> RecordRead {
        match self.calls.get::<Lease>(&self.namespace, &self.name).await {
            Ok(Some(lease)) => RecordRead::of(lease),
            Ok(None) => RecordRead::Missing,
            Err(error) => RecordRead::of_error(&error),
        }
    }

    /// Makes the record, uninitialised, when there is none. **For the operator only**: agents never create
    /// it, or a deleted record would be an invitation to start anew.
    pub async fn create_uninitialised(
        &self,
        cluster_uid: &str,
        labels: BTreeMap<String, String>,
        owner: Option<OwnerReference>,
    ) -> Result<Created, CallError> {
        self.create(&Record::uninitialised(cluster_uid), labels, owner).await
    }

    /// Makes the record with this content when there is none: the rebuilding of a lost record from the
    /// reports of *all* members. **For the operator only.**
    pub async fn create(
        &self,
        record: &Record,
        labels: BTreeMap<String, String>,
        owner: Option<OwnerReference>,
    ) -> Result<Created, CallError> {
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            labels: (!labels.is_empty()).then_some(labels),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        let record = Record { lease_uid: None, ..record.clone() };
        let lease = lease(metadata, &record, None, FieldManager::OPERATOR)?;
        let api = self.calls.api::<Lease>(&self.namespace);
        match self.calls.run("create record", api.create(&params(FieldManager::OPERATOR), &lease)).await {
            Ok(lease) => match RecordRead::of(lease) {
                RecordRead::Known(snapshot) => Ok(Created::Made(snapshot)),
                other => Ok(Created::Existed(other)),
            },
            Err(error) if error.class() == ErrorClass::AlreadyExists => match self.read().await {
                RecordRead::Unknown { .. } => Err(error),
                read => Ok(Created::Existed(read)),
            },
            Err(error) => Err(error),
        }
    }

    /// Writes `record` if the Lease still is `on`. The Lease's own UID is put in (K20).
    pub async fn swap(&self, on: &Snapshot, record: &Record) -> Swapped {
        let mut wanted = record.clone();
        wanted.lease_uid = Some(on.lease_uid.clone());
        self.replace(on, &wanted).await
    }

    /// Writes the same record with a newer `renewTime`: the authority of asynchronous mode, and the sign of
    /// life every 10 s; without a leader there is nothing to renew. A compare-and-swap like any other: decisions made on `on` are void afterwards.
    pub async fn renew(&self, on: &Snapshot) -> Swapped {
        self.swap(on, &on.record).await
    }

    /// Whether an earlier swap of unknown outcome took place: a fresh read whose content is `wanted`.
    /// `Lost` with the version that the swap was made on means "not yet": it may still arrive, until any
    /// other swap wins.
    pub async fn settle(&self, wanted: &Record) -> Swapped {
        match self.read().await {
            RecordRead::Known(now) if same(&now.record, wanted) => Swapped::Won(now),
            RecordRead::Unknown { why, denied } => Swapped::Unknown { why, denied },
            read => Swapped::Lost(read),
        }
    }

    async fn replace(&self, on: &Snapshot, wanted: &Record) -> Swapped {
        let mut metadata = on.lease.metadata.clone();
        metadata.managed_fields = None;
        let lease = match lease(metadata, wanted, Some(on), FieldManager::AGENT) {
            Ok(lease) => lease,
            Err(error) => return Swapped::Refused { why: chain(&error) },
        };
        let api = self.calls.api::<Lease>(&self.namespace);
        let params = params(FieldManager::AGENT);
        match self.calls.run("swap record", api.replace(&self.name, &params, &lease)).await {
            Ok(lease) => match RecordRead::of(lease) {
                RecordRead::Known(snapshot) if same(&snapshot.record, wanted) => Swapped::Won(snapshot),
                other => Swapped::Lost(other),
            },
            Err(error) => match error.class() {
                // A conflict may be our own earlier success; a missing Lease is told by the read.
                ErrorClass::Conflict | ErrorClass::NotFound | ErrorClass::AlreadyExists => {
                    self.settle(wanted).await
                }
                ErrorClass::Invalid => Swapped::Refused { why: error.told() },
                ErrorClass::Denied | ErrorClass::Unknown => {
                    Swapped::Unknown { why: chain(&error), denied: error.class() == ErrorClass::Denied }
                }
            },
        }
    }
}

/// Equal but for the Lease's UID, which the writer of `wanted` may not have known.
fn same(there: &Record, wanted: &Record) -> bool {
    let uid = there.lease_uid.clone();
    *there == Record { lease_uid: uid, ..wanted.clone() }
}

fn params(manager: FieldManager) -> PostParams {
    PostParams { field_manager: Some(manager.as_str().to_owned()), ..PostParams::default() }
}

fn transitions(record: &Record) -> i32 {
    i32::try_from(record.epoch.0).unwrap_or(i32::MAX)
}

fn holder(record: &Record) -> Option<&str> {
    record.leader.as_ref().map(|leader| leader.name.0.as_str())
}

fn lease(
    mut metadata: ObjectMeta,
    record: &Record,
    on: Option<&Snapshot>,
    manager: FieldManager,
) -> Result<Lease, CallError> {
    let call = if manager == FieldManager::OPERATOR { "create record" } else { "swap record" };
    let text = serde_json::to_string(record)
        .map_err(|source| CallError::Api { call, source: Box::new(kube::Error::SerdeError(source)) })?;
    metadata.annotations.get_or_insert_default().insert(RECORD_ANNOTATION.to_owned(), text);
    let now = MicroTime(Timestamp::now());
    let kept = on
        .filter(|on| on.record.leader == record.leader && on.record.epoch == record.epoch)
        .and_then(|on| on.lease.spec.as_ref()?.acquire_time.clone());
    let duration = record
        .lease_millis
        .map_or(DURATION_SECONDS, |millis| i32::try_from(millis.div_ceil(1000)).unwrap_or(i32::MAX).max(1));
    let spec = LeaseSpec {
        holder_identity: holder(record).map(ToOwned::to_owned),
        lease_transitions: Some(transitions(record)),
        lease_duration_seconds: Some(duration),
        acquire_time: record.leader.is_some().then(|| kept.unwrap_or_else(|| now.clone())),
        renew_time: record.leader.is_some().then_some(now),
        ..LeaseSpec::default()
    };
    Ok(Lease { metadata, spec: Some(spec) })
}

fn snapshot(lease: Lease) -> Result<Snapshot, Tampering> {
    let metadata = &lease.metadata;
    let version = metadata.resource_version.clone().ok_or(Tampering::NoMetadata("resourceVersion"))?;
    let lease_uid = metadata.uid.clone().ok_or(Tampering::NoMetadata("uid"))?;
    let text = metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(RECORD_ANNOTATION))
        .ok_or(Tampering::NoAnnotation)?;
    let record: Record = serde_json::from_str(text).map_err(Tampering::Parse)?;
    if let Some(recorded) = record.lease_uid.as_ref().filter(|recorded| **recorded != lease_uid) {
        return Err(Tampering::OtherLease { lease: lease_uid, record: recorded.clone() });
    }
    let spec = lease.spec.clone().unwrap_or_default();
    let found = spec.holder_identity.as_deref().unwrap_or_default();
    let wanted = holder(&record).unwrap_or_default();
    if found != wanted {
        let (spec, record) = (found.to_owned(), wanted.to_owned());
        return Err(Tampering::Mirror { field: "holderIdentity", spec, record });
    }
    let (found, wanted) = (spec.lease_transitions.unwrap_or_default(), transitions(&record));
    if found != wanted {
        let (spec, record) = (found.to_string(), wanted.to_string());
        return Err(Tampering::Mirror { field: "leaseTransitions", spec, record });
    }
    Ok(Snapshot {
        record: Box::new(record),
        version: Version(version),
        lease_uid,
        renewed_at: spec.renew_time.map(|time| time.0),
        lease: Arc::new(lease),
    })
}

/// The error and its sources in one line.
fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        next = source.source();
    }
    line
}

#[cfg(test)]
mod tests;
