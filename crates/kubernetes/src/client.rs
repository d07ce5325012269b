//! Clients that neither retry nor wait for ever.
//!
//! kube retries every request on 429, 503 and 504 up to fifteen times without looking at the method, and
//! waits for an answer without a bound. A renewal could hang past its deadline, and a write that succeeded
//! behind a 504 would come back as our own conflict. So `default_retry` is off in every client of ours.
//!
//! Timeouts are properties of a client: one that is right for a call breaks a watch, therefore two clients.

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;

mod observed;

pub use observed::{Asked, Observer};

/// Bound of connecting and of writing a request.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A client could not be made.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Neither a service account nor a kubeconfig was found.
    #[error("cannot find out how to reach the API server")]
    Infer(#[source] Box<kube::config::InferConfigError>),
    /// The service account's files are missing or broken.
    #[error("cannot read the pod's service account")]
    InCluster(#[source] kube::config::InClusterError),
    /// There is no kubeconfig there, or it is none.
    #[error("cannot read the kubeconfig {0}")]
    ReadKubeconfig(PathBuf, #[source] Box<KubeconfigError>),
    /// The kubeconfig names what it does not have.
    #[error("cannot use the kubeconfig {0}")]
    UseKubeconfig(PathBuf, #[source] Box<KubeconfigError>),
    /// The configuration is unusable.
    #[error("cannot build a client for the API server")]
    Build(#[source] Box<kube::Error>),
}

/// Where the address and the credentials come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The pod's service account, nothing else.
    InCluster,
    /// The environment's kubeconfig, else the pod's service account.
    Infer,
}

/// Two clients of one identity.
#[derive(Clone)]
pub struct Clients {
    /// For calls that answer: read timeout set, counted from the request.
    pub calls: Client,
    /// For watches: no read timeout, each watch brings its own bound.
    pub watches: Client,
    /// The namespace of the service account or context.
    pub namespace: String,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Clients {
    /// Builds both; `read_timeout` bounds the silence on a connection after a request of `calls`.
    ///
    /// Reads the credentials anew, so it is also what to do once after a 401 (K11).
    pub async fn build(origin: Origin, read_timeout: Duration) -> Result<Self, ClientError> {
        let base = match origin {
            Origin::InCluster => Config::incluster().map_err(ClientError::InCluster)?,
            Origin::Infer => Config::infer().await.map_err(|error| ClientError::Infer(Box::new(error)))?,
        };
        Self::of(base, read_timeout)
    }

    /// Builds both from this kubeconfig and `context`, or its current one. Reads the credentials anew, too.
    ///
    /// # Errors
    /// When the file or what it names cannot be used.
    pub async fn of_kubeconfig(
        file: &Path,
        context: Option<&str>,
        read_timeout: Duration,
    ) -> Result<Self, ClientError> {
        let named = || file.to_path_buf();
        let kubeconfig = Kubeconfig::read_from(file)
            .map_err(|error| ClientError::ReadKubeconfig(named(), Box::new(error)))?;
        let chosen =
            KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
        let base = Config::from_custom_kubeconfig(kubeconfig, &chosen)
            .await
            .map_err(|error| ClientError::UseKubeconfig(named(), Box::new(error)))?;
        Self::of(base, read_timeout)
    }

    fn of(base: Config, read_timeout: Duration) -> Result<Self, ClientError> {
        let namespace = base.default_namespace.clone();
        let calls = client(for_calls(base.clone(), read_timeout))?;
        let watches = client(for_watches(base))?;
        Ok(Self { calls, watches, namespace })
    }
}

impl Clients {
    /// The same two clients, each request counted by `observer` and the credentials read anew after a 401 (K11).
    #[must_use]
    pub fn observed(self, origin: Origin, read_timeout: Duration, observer: Arc<dyn Observer>) -> Self {
        let renew: observed::Renew = Box::new(move || Box::pin(Self::build(origin, read_timeout)));
        observed::observed(self, renew, observer)
    }

    /// The same for clients of [`Clients::of_kubeconfig`]: its file is read anew after a 401.
    #[must_use]
    pub fn observed_of_kubeconfig(
        self,
        file: &Path,
        context: Option<&str>,
        read_timeout: Duration,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let (file, context) = (file.to_path_buf(), context.map(str::to_owned));
        let renew: observed::Renew = Box::new(move || {
            let (file, context) = (file.clone(), context.clone());
            Box::pin(async move { Self::of_kubeconfig(&file, context.as_deref(), read_timeout).await })
        });
        observed::observed(self, renew, observer)
    }
}

/// The settings of a client for calls.
pub fn for_calls(mut config: Config, read_timeout: Duration) -> Config {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.write_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(read_timeout);
    config.reset_reader_on_write = true;
    config
}

/// The settings of a client for watches.
pub fn for_watches(mut config: Config) -> Config {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.write_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = None;
    config
}

fn client(config: Config) -> Result<Client, ClientError> {
    Client::try_from(config).map_err(|error| ClientError::Build(Box::new(error)))
}
