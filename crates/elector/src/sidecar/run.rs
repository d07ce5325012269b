//! The process: what it is told, an election, answers, duties, and an end in good order.

use std::{future::Future, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use kubernetes::Calls;
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    clients::clients,
    command::{self, Bounds, Told},
    hooks::Hooks,
    http::{self, Shown},
    label::{self, Pod},
    metrics::ElectorMetrics,
    options::Options,
    service::{Pointer, target},
};
use crate::{Elector, Settings, elector::Handle};

/// Runs until a signal, or until the command of `--run` ends.
///
/// # Errors
/// What cannot be done at the start, each in one sentence.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let name = name(&options)?;
    // What needs nobody else is checked first.
    let mut settings = Settings::new(&options.election, "", &name);
    (settings.ttl, settings.priority, settings.uid) =
        (options.ttl, options.priority, options.pod_uid.clone());
    let times = settings.check()?;
    let listener = match options.http.0 {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address} (--http)"))?,
        ),
        None => None,
    };
    if let Some(listener) = &listener {
        let answers = listener.local_addr().context("the address of --http")?;
        tracing::info!(%answers, "listening");
    }
    let metrics = ElectorMetrics::default();
    let clients = clients(&options, times.call(), Arc::new(metrics.clone())).await?;
    settings.namespace = options.election_namespace.clone().unwrap_or_else(|| clients.namespace.clone());
    let namespace = settings.namespace.clone();
    let calls = Calls::new(clients.calls.clone(), times.call());

    let pod_label = options
        .label_pods
        .clone()
        .map(|label| Ok::<_, anyhow::Error>((label, pod(&options, &clients.namespace)?)));
    let pod_label = pod_label.transpose().context("--label-pods")?;
    let pointer = options.service.as_ref().map(|service| pointer(&options, &clients.namespace, service));
    let pointer = pointer.transpose().context("--service")?;

    let elector = Elector::start(&clients, settings)?;
    tracing::info!(
        election = options.election, namespace, id = name, identity = elector.identity(), ttl = ?options.ttl, "standing"
    );
    let handle = elector.handle();
    let shown = Shown::new(
        handle.clone(),
        name.clone(),
        options.ttl,
        metrics.clone(),
        options.allow_remote_step_down,
    );

    let mut duties = JoinSet::new();
    if let Some((label, pod)) = pod_label {
        duties.spawn(label::keep(calls.clone(), pod, label, handle.clone(), times.renew()));
    }
    if let Some(pointer) = pointer {
        duties.spawn(pointer.keep(calls.clone(), handle.clone(), times.retry()));
    }
    let told = Told { election: options.election.clone(), leader: String::new(), me: name, epoch: None };
    let bounds = Bounds { ttl: options.ttl, grace: options.run_grace };
    let hooks = Hooks { lead: options.exec_on_lead.clone(), follow: options.exec_on_follow.clone() };
    if hooks.lead.is_some() || hooks.follow.is_some() {
        duties.spawn(hooks.keep(handle.clone(), shown.clone(), told.clone(), bounds));
    }
    duties.spawn(announce(shown.clone(), metrics));

    let mut command = tokio::spawn(command_of(options.run, handle, told, bounds));
    let ended = tokio::select! {
        signal = stopped() => {
            tracing::info!(signal, "stopping");
            Ok(ExitCode::SUCCESS)
        }
        code = &mut command => {
            code.context("the task of --run")?.map(ExitCode::from).context("the command of --run")
        }
        ended = served(listener, shown) => ended,
    };
    // The duties, the command's too, end their work with the term.
    elector.leave().await;
    ended
}

async fn command_of(words: Vec<String>, handle: Handle, told: Told, bounds: Bounds) -> std::io::Result<u8> {
    if words.is_empty() {
        return std::future::pending().await;
    }
    command::keep(handle, words, told, bounds).await
}

async fn served(listener: Option<TcpListener>, shown: Shown) -> anyhow::Result<ExitCode> {
    let Some(listener) = listener else { return std::future::pending().await };
    http::serve(listener, shown).await.context("serve http")?;
    anyhow::bail!("the HTTP server ended")
}

/// `--id`, else the pod's name, else the host's.
fn name(options: &Options) -> anyhow::Result<String> {
    if let Some(name) = options.id.clone().or_else(|| options.pod_name.clone()) {
        return Ok(name);
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").context("no --id, and no host name")?;
    Ok(host.trim().to_owned())
}

fn pod(options: &Options, namespace: &str) -> anyhow::Result<Pod> {
    let of_env = |value: &Option<String>, variable: &str| {
        value.clone().filter(|value| !value.is_empty()).with_context(|| {
            format!("needs the variable {variable}, which the downward API gives (see examples/elector)")
        })
    };
    Ok(Pod {
        namespace: namespace.to_owned(),
        name: of_env(&options.pod_name, "POD_NAME")?,
        uid: of_env(&options.pod_uid, "POD_UID")?,
    })
}

fn pointer(options: &Options, namespace: &str, service: &str) -> anyhow::Result<Pointer> {
    let pod = pod(options, namespace)?;
    let node = options.node_name.as_deref().context("needs the variable NODE_NAME")?;
    anyhow::ensure!(!options.pod_ip.is_empty(), "needs the variable POD_IP");
    Ok(Pointer {
        namespace: namespace.to_owned(),
        service: service.to_owned(),
        target: target(&pod.name, &pod.uid, &options.pod_ip, node),
    })
}

/// Says on standard output who leads, as it always was.
async fn announce(shown: Shown, metrics: ElectorMetrics) {
    let mut told = shown.told();
    let mut said = String::new();
    loop {
        metrics.saw(told.epoch);
        if !told.name.is_empty() && told.name != said {
            println!("{} is the leader", told.name);
            said.clone_from(&told.name);
        }
        told = shown.news(&told).await;
    }
}

fn stopped() -> impl Future<Output = &'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    // Registered at once: a signal before the first poll counts, too.
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    }
}
