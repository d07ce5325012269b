//! One way to write an object: look whose it is, skip what is as it was left, apply.
//!
//! A cluster at rest costs no write (L2): the version after the last apply is remembered with what was applied, and
//! only a change of either writes again. Losing that memory costs one apply per object.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, PoisonError},
};

use api::{names::labels, settings::SettingsError};
use kube::ResourceExt as _;
use kubernetes::{CallError, Calls, ErrorClass, FieldManager, Object};

use crate::cluster::ValidatedCluster;

/// Objects could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else has an object of that name.
    #[error(
        "{kind} {name} belongs to somebody else; rename it, or choose another name for the cluster or Service"
    )]
    NameTaken {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The object of a former cluster of that name has not gone yet.
    #[error("{kind} {name} of a former cluster has not gone yet")]
    Leaving {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// An object was not written.
    #[error("cannot apply {kind} {name}")]
    Object {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: CallError,
    },
    /// A slice was not made.
    #[error("cannot make the endpoint slice")]
    Slice {
        /// Why not.
        #[source]
        source: CallError,
    },
    /// A selector on a route, or what came of it, is still there.
    #[error("cannot take the selector off a Service of a route")]
    Selector {
        /// Why not.
        #[source]
        source: CallError,
    },
    /// A renamed Service was not deleted.
    #[error("cannot delete a Service of a former name")]
    Orphan {
        /// Why not.
        #[source]
        source: CallError,
    },
    /// The record was not made.
    #[error("cannot make the record")]
    Record {
        /// Why not.
        #[source]
        source: CallError,
    },
    /// A record appeared meanwhile; look again.
    #[error("a record appeared while one was to be made")]
    RecordAppeared,
    /// The version that was to be replaced is gone; look again.
    #[error("{kind} {name} was deleted while it was to be written")]
    Gone {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Settings were not rendered.
    #[error("cannot render the members' settings")]
    Settings(#[source] SettingsError),
    /// A claim did not grow. The API server refuses it as forbidden where the storage class does not allow it.
    #[error(
        "storage.size: volume claim {claim} cannot grow; allow it in its storage class (allowVolumeExpansion: true)"
    )]
    Grow {
        /// Its name.
        claim: String,
        /// Why not.
        #[source]
        source: CallError,
    },
    /// A claim was not given up.
    #[error("cannot give up a volume claim")]
    Claim {
        /// Why not.
        #[source]
        source: CallError,
    },
    /// The StatefulSet was not deleted.
    #[error("cannot replace the StatefulSet to change its claim template")]
    ClaimTemplate {
        /// Why not.
        #[source]
        source: CallError,
    },
    /// A pod was not deleted.
    #[error("cannot delete a pod")]
    DeletePod {
        /// Why not.
        #[source]
        source: CallError,
    },
}

impl ApplyError {
    /// The call that failed, if one did.
    pub fn call(&self) -> Option<&CallError> {
        match self {
            Self::Object { source, .. }
            | Self::Slice { source }
            | Self::Selector { source }
            | Self::Orphan { source }
            | Self::Record { source }
            | Self::Grow { source, .. }
            | Self::Claim { source }
            | Self::ClaimTemplate { source }
            | Self::DeletePod { source } => Some(source),
            Self::NameTaken { .. }
            | Self::Leaving { .. }
            | Self::Gone { .. }
            | Self::RecordAppeared
            | Self::Settings(_) => None,
        }
    }

    /// Whether people must act before another try can succeed.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::NameTaken { .. } => true,
            Self::Grow { source, .. } => {
                matches!(source.class(), ErrorClass::Invalid | ErrorClass::Denied)
            }
            other => other.call().is_some_and(|call| call.class() == ErrorClass::Invalid),
        }
    }
}

/// What was applied to an object, and the version it had afterwards.
#[derive(Debug, PartialEq, Eq)]
struct Last {
    content: u64,
    version: String,
}

/// Writes objects.
#[derive(Debug)]
pub struct Applier {
    calls: Calls,
    last: Mutex<HashMap<(String, String, String), Last>>,
}

impl Applier {
    /// An applier that remembers nothing yet.
    pub fn new(calls: Calls) -> Self {
        Self { calls, last: Mutex::default() }
    }

    /// The calls that it writes with.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Applies an object, unless it is as the last apply left it. Returns it as the API server has it.
    pub async fn apply<K: Object>(&self, cluster: &ValidatedCluster, object: &K) -> Result<K, ApplyError> {
        let (kind, name) = (K::kind(&()).into_owned(), object.name_any());
        let failed = |source| ApplyError::Object { kind: kind.clone(), name: name.clone(), source };
        let there = self.calls.get::<K>(&cluster.namespace, &name).await.map_err(failed)?;
        let content = content(object);
        let key = (kind.clone(), cluster.namespace.clone(), name.clone());
        if let Some(there) = there {
            check_owner(cluster, &kind, &name, &there)?;
            let version = version(&there);
            if self.remembered(&key) == Some(Last { content, version }) {
                return Ok(there);
            }
        } else if object.meta().resource_version.is_some() {
            // An apply would make it again as it was, and what was decided on it may be out of date.
            return Err(ApplyError::Gone { kind, name });
        }
        let applied = self.calls.apply(FieldManager::OPERATOR, object).await.map_err(failed)?;
        let version = version(&applied);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Last { content, version });
        tracing::debug!(kind, name, "applied");
        Ok(applied)
    }

    fn remembered(&self, key: &(String, String, String)) -> Option<Last> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(key).map(|last| Last { content: last.content, version: last.version.clone() })
    }
}

/// A name alone is never an identity: what is not ours is left alone.
fn check_owner<K: Object>(
    cluster: &ValidatedCluster,
    kind: &str,
    name: &str,
    there: &K,
) -> Result<(), ApplyError> {
    let (kind, name) = (kind.to_owned(), name.to_owned());
    let other = there
        .owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && owner.uid != cluster.uid);
    // By UID also without the label, which somebody may have taken off.
    let owned = there.owner_references().iter().any(|owner| owner.uid == cluster.uid);
    let ours = owned || there.labels().get(labels::CLUSTER).is_some_and(|there| *there == cluster.name);
    match (ours, other, there.meta().deletion_timestamp.is_some()) {
        (true, false, false) => Ok(()),
        (true, true, _) | (true, false, true) => Err(ApplyError::Leaving { kind, name }),
        (false, _, _) => Err(ApplyError::NameTaken { kind, name }),
    }
}

/// What changes whenever somebody changes what we applied. The generation where there is one, because the resourceVersion
/// moves with each status that a controller of Kubernetes writes.
fn version<K: Object>(object: &K) -> String {
    let meta = object.meta();
    match meta.generation {
        None => meta.resource_version.clone().unwrap_or_default(),
        Some(generation) => {
            let metadata = (&meta.uid, &meta.labels, &meta.annotations, &meta.owner_references);
            format!("{generation} {}", serde_json::to_string(&metadata).unwrap_or_default())
        }
    }
}

/// Without the version that it replaces, which is a precondition: it moves with each write and says nothing new.
fn content<K: Object>(object: &K) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut object = object.clone();
    object.meta_mut().resource_version = None;
    serde_json::to_string(&object).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}
