//! How the sidecar reaches the API server: without kube's own retries, which would outlive a deadline, and with credentials that
//! are read anew when the API server refuses them (`tests/sidecar/credentials.rs`).

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use kubernetes::client::{Clients, Observer, Origin};

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
        let context = options.context.as_deref();
        let clients = Clients::of_kubeconfig(file, context, bound).await?;
        return Ok(clients.observed_of_kubeconfig(file, context, bound, observer));
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
