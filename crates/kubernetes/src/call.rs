//! One call to the API server: bounded, and its failure classified once.

use kube::{Api, Client, Resource, ResourceExt, api::ListParams, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, future::Future, time::Duration};
use thiserror::Error;

/// What a failure proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The object has another version, or a field another owner. It may be our own earlier success.
    Conflict,
    /// A create found the name taken.
    AlreadyExists,
    /// There is no such object.
    NotFound,
    /// The request itself is refused as wrong (400, 422); nothing was written.
    Invalid,
    /// 401 or 403. Proves nothing about the object: a deleted pod's token dies at once (K11).
    Denied,
    /// No answer, or one that proves nothing: timeout, connection, 410, 429, 5xx, unreadable body.
    Unknown,
}

impl ErrorClass {
    /// Whether the object's state, and whether a write took place, is unknown (ha-protocol §2).
    pub const fn is_unknown(self) -> bool {
        matches!(self, Self::Denied | Self::Unknown)
    }

    /// A word for a metric's label or an Event's reason.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Conflict => "Conflict",
            Self::AlreadyExists => "AlreadyExists",
            Self::NotFound => "NotFound",
            Self::Invalid => "Invalid",
            Self::Denied => "Denied",
            Self::Unknown => "Unknown",
        }
    }

    /// Classifies an error of kube's.
    pub fn of(error: &kube::Error) -> Self {
        let status = match error {
            kube::Error::Api(status) => status,
            kube::Error::BuildRequest(_) => return Self::Invalid,
            _ => return Self::Unknown,
        };
        match status.code {
            400 | 422 => Self::Invalid,
            401 | 403 => Self::Denied,
            404 => Self::NotFound,
            409 if status.is_already_exists() => Self::AlreadyExists,
            409 => Self::Conflict,
            _ => Self::Unknown,
        }
    }
}

/// A call failed.
#[derive(Debug, Error)]
pub enum CallError {
    /// Nothing came within the bound. A write may have taken place, or may still.
    #[error("{call}: no answer within {bound:?}")]
    Timeout {
        /// Which call.
        call: &'static str,
        /// How long was waited.
        bound: Duration,
    },
    /// The server or the connection answered with an error.
    #[error("{call} failed")]
    Api {
        /// Which call.
        call: &'static str,
        /// kube's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object that was to be written lacks its name or namespace, or a precondition.
    #[error("{call}: the object has no {field}")]
    Incomplete {
        /// Which call.
        call: &'static str,
        /// Which field.
        field: &'static str,
    },
}

impl CallError {
    /// What the failure proves.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Timeout { .. } => ErrorClass::Unknown,
            Self::Api { source, .. } => ErrorClass::of(source),
            Self::Incomplete { .. } => ErrorClass::Invalid,
        }
    }

    /// Whether the API server names this field as a cause.
    pub fn about(&self, field: &str) -> bool {
        let Self::Api { source, .. } = self else { return false };
        let kube::Error::Api(status) = source.as_ref() else { return false };
        status.details.as_ref().is_some_and(|details| details.causes.iter().any(|cause| cause.field == field))
    }

    /// The message of the API server when there is one, for people: it names the field and the reason.
    pub fn told(&self) -> String {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
                other => other.to_string(),
            },
            other => other.to_string(),
        }
    }
}

/// Waits for a call for at most `bound`.
pub async fn bounded<T>(
    call: &'static str,
    bound: Duration,
    future: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(bound, future).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(CallError::Api { call, source: Box::new(source) }),
        Err(_) => Err(CallError::Timeout { call, bound }),
    }
}

/// A namespaced kind whose type is known when compiling: everything this project writes.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// A client together with the bound of each of its calls.
#[derive(Clone)]
pub struct Calls {
    client: Client,
    bound: Duration,
}

impl Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl Calls {
    /// Calls over `client`, each answered within `bound` or failed.
    pub fn new(client: Client, bound: Duration) -> Self {
        Self { client, bound }
    }

    /// The same client with another bound.
    #[must_use]
    pub fn within(&self, bound: Duration) -> Self {
        Self { client: self.client.clone(), bound }
    }

    /// The client, for what has no wrapper here.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How long a call may take.
    pub fn bound(&self) -> Duration {
        self.bound
    }

    /// Reads an object: a fresh, quorum read (no resourceVersion given). `None` when there is none.
    pub async fn get<K: Object>(&self, namespace: &str, name: &str) -> Result<Option<K>, CallError> {
        let api = self.api::<K>(namespace);
        self.run("get", api.get_opt(name)).await
    }

    /// Reads every object that `labels` selects (label-selector syntax), at the newest version.
    pub async fn list<K: Object>(&self, namespace: &str, labels: &str) -> Result<Vec<K>, CallError> {
        let api = self.api::<K>(namespace);
        let params = ListParams { label_selector: Some(labels.to_owned()), ..ListParams::default() };
        self.run("list", api.list(&params)).await.map(|list| list.items)
    }

    pub(crate) fn api<K: Object>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn run<T>(
        &self,
        call: &'static str,
        future: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, CallError> {
        bounded(call, self.bound, future).await
    }
}

/// Namespace and name of an object that is about to be written.
pub(crate) fn place<K: Object>(call: &'static str, object: &K) -> Result<(String, String), CallError> {
    let namespace = object.namespace().ok_or(CallError::Incomplete { call, field: "metadata.namespace" })?;
    let name = object.meta().name.clone().ok_or(CallError::Incomplete { call, field: "metadata.name" })?;
    Ok((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::{Calls, ErrorClass};
    use crate::mock::{Answer, api_server};
    use k8s_openapi::api::core::v1::Secret;
    use std::time::Duration;

    async fn class_of(answer: Answer) -> ErrorClass {
        let (client, _) = api_server(move |_| answer.clone());
        let calls = Calls::new(client, Duration::from_millis(50));
        calls.get::<Secret>("shop", "pg").await.unwrap_err().class()
    }

    /// ha-protocol §2: only a fresh read proves anything.
    #[tokio::test(start_paused = true)]
    async fn what_proves_nothing_is_unknown() {
        for code in [429, 500, 502, 503, 504, 410] {
            assert_eq!(class_of(Answer::status(code, "X")).await, ErrorClass::Unknown, "{code}");
        }
        for code in [401, 403] {
            let class = class_of(Answer::status(code, "X")).await;
            assert!(class == ErrorClass::Denied && class.is_unknown(), "{code}");
        }
        assert_eq!(class_of(Answer::Silence).await, ErrorClass::Unknown);
        assert_eq!(class_of(Answer::Text(200, "not json".into())).await, ErrorClass::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn what_proves_something_is_told_apart() {
        assert_eq!(class_of(Answer::status(409, "Conflict")).await, ErrorClass::Conflict);
        assert_eq!(class_of(Answer::status(409, "AlreadyExists")).await, ErrorClass::AlreadyExists);
        assert_eq!(class_of(Answer::status(422, "Invalid")).await, ErrorClass::Invalid);
        let (client, _) = api_server(|_| Answer::status(404, "NotFound"));
        let calls = Calls::new(client, Duration::from_millis(50));
        assert!(calls.get::<Secret>("shop", "pg").await.unwrap().is_none());
    }
}
