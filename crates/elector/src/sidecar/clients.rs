//! How the sidecar reaches the API server: without kube's own retries, which would outlive a deadline.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use kubernetes::client::{Clients, Observer, Origin, for_calls, for_watches};

use super::options::Options;

/// The clients that the options ask for; each call's silence is bounded by `bound`.
///
/// # Errors
/// When there is no cluster to be found, in one sentence that says what was looked for.
pub async fn clients(
    options: &Options,
    bound: Duration,
    observer: Arc<dyn Observer>,
) -> anyhow::Result<Clients> {
    if let Some(file) = &options.kubeconfig {
        return from_file(file, options.context.clone(), bound).await;
    }
    let origin = if options.use_cluster_credentials { Origin::InCluster } else { Origin::Infer };
    let clients = Clients::build(origin, bound).await.with_context(|| {
        if options.use_cluster_credentials {
            "no cluster: this process has no service account (--use-cluster-credentials)"
        } else {
            "no cluster: neither a kubeconfig nor a service account was found"
        }
    })?;
    Ok(clients.observed(origin, bound, observer))
}

async fn from_file(file: &Path, context: Option<String>, bound: Duration) -> anyhow::Result<Clients> {
    let kubeconfig =
        Kubeconfig::read_from(file).with_context(|| format!("read the kubeconfig {}", file.display()))?;
    let chosen = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &chosen)
        .await
        .with_context(|| format!("use the kubeconfig {}", file.display()))?;
    let namespace = config.default_namespace.clone();
    let client = |config| Client::try_from(config).context("build a client for the API server");
    let (calls, watches) = (client(for_calls(config.clone(), bound))?, client(for_watches(config))?);
    Ok(Clients { calls, watches, namespace })
}
