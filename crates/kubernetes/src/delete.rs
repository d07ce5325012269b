//! Deleting exactly the object that was looked at.

use crate::call::{CallError, Calls, ErrorClass, Object};
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// Accepted; the object goes as its finalizers and grace period allow.
    Accepted,
    /// There was none.
    Gone,
    /// There is another object of that name, or it changed since: look again before deciding.
    Changed,
}

/// What happens to the objects that it owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependents {
    /// They go too, later.
    Background,
    /// They go first.
    Foreground,
    /// They stay (claim templates of a StatefulSet, K13).
    Orphan,
}

/// How to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// What happens to what it owns.
    pub dependents: Dependents,
    /// Also demand that nothing changed since the object was read, not only that it is the same one.
    pub unchanged: bool,
}

impl Deletion {
    /// This very object in this very version, dependents in the background.
    pub const UNCHANGED: Self = Self { dependents: Dependents::Background, unchanged: true };
    /// This very object, whatever changed in it, dependents in the background.
    pub const SAME: Self = Self { dependents: Dependents::Background, unchanged: false };
    /// This very object in this very version, its dependents stay.
    pub const ORPHAN: Self = Self { dependents: Dependents::Orphan, unchanged: true };
}

impl Calls {
    /// Deletes `object` as it was read: its UID is always a precondition, its resourceVersion when asked.
    pub async fn delete<K: Object>(&self, object: &K, how: Deletion) -> Result<Deleted, CallError> {
        const CALL: &str = "delete";
        let (namespace, name) = crate::call::place(CALL, object)?;
        let uid = object.meta().uid.clone();
        let version = object.meta().resource_version.clone();
        if uid.is_none() {
            return Err(CallError::Incomplete { call: CALL, field: "metadata.uid" });
        }
        if how.unchanged && version.is_none() {
            return Err(CallError::Incomplete { call: CALL, field: "metadata.resourceVersion" });
        }
        let params = DeleteParams {
            propagation_policy: Some(match how.dependents {
                Dependents::Background => PropagationPolicy::Background,
                Dependents::Foreground => PropagationPolicy::Foreground,
                Dependents::Orphan => PropagationPolicy::Orphan,
            }),
            preconditions: Some(Preconditions { uid, resource_version: version.filter(|_| how.unchanged) }),
            ..DeleteParams::default()
        };
        let api = self.api::<K>(&namespace);
        match self.run(CALL, api.delete(&name, &params)).await {
            Ok(_) => Ok(Deleted::Accepted),
            Err(error) => match error.class() {
                ErrorClass::NotFound => Ok(Deleted::Gone),
                ErrorClass::Conflict => Ok(Deleted::Changed),
                _ => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Deleted, Deletion};
    use crate::{
        Calls,
        mock::{Answer, api_server},
    };
    use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
    use std::time::Duration;

    fn pod(uid: Option<&str>) -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some("pg-0".into()),
                namespace: Some("shop".into()),
                uid: uid.map(Into::into),
                resource_version: Some("7".into()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        }
    }

    #[tokio::test]
    async fn a_name_alone_deletes_nothing() {
        let (client, log) = api_server(|_| Answer::status(409, "Conflict"));
        let calls = Calls::new(client, Duration::from_secs(1));
        assert!(calls.delete(&pod(None), Deletion::SAME).await.is_err());
        assert!(log.lock().unwrap().is_empty());
        assert_eq!(calls.delete(&pod(Some("u")), Deletion::UNCHANGED).await.unwrap(), Deleted::Changed);
        let asked = log.lock().unwrap().pop().unwrap();
        assert_eq!(asked.body["preconditions"]["uid"], "u");
        assert_eq!(asked.body["preconditions"]["resourceVersion"], "7");
    }
}
