//! Shows the product: three members form, clients write, the master dies, another takes over, nothing is lost.
//!
//! The master's death is its pod deleted with force: the API server forgets it at once and the kubelet kills its
//! processes without asking, on any Kubernetes alike. The exit code tells the truth; when a step fails, what this command
//! started is removed again.

mod client;

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::deploy::{self, Options, Target};
use crate::this::{self, StartedRig};
use crate::{command, packages};

/// Where everything of the demonstration is.
const NAMESPACE: &str = "matriarch-demo";
/// The cluster's name in the example.
const CLUSTER: &str = "pg";
/// The label of people.
const MEMBERS: &str = "matriarch.dev/cluster=pg";
/// For each single thing to happen.
const BOUND: Duration = Duration::from_secs(240);

/// Three members, a master that dies, and a client that noticed only a gap.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Use this cluster instead of the rig; needs `kubectl` and `helm`, and images that its nodes can pull.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// With --kubeconfig: image of the operator and the agent.
    #[arg(long, requires = "kubeconfig")]
    image: Option<String>,
    /// With --kubeconfig: image of the test client.
    #[arg(long, requires = "kubeconfig")]
    client_image: Option<String>,
    /// With --kubeconfig: image of PostgreSQL 17.
    #[arg(long, requires = "kubeconfig")]
    postgres_image: Option<String>,
    /// How many nodes the rig gets.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let started = Instant::now();
    let (target, options, client_image) = choose(arguments)?;
    let rig = match target {
        Target::Rig => {
            packages::ensure_installed()?;
            StartedRig::unless_running(None, &["--nodes", &arguments.nodes.to_string()])?
        }
        Target::Own(_) => None,
    };
    let mut traces = Traces { target: target.clone(), chart: false, namespace: false };
    match show(&target, &options, &client_image, &mut traces) {
        Ok(()) => {
            if let Some(rig) = rig {
                rig.keep();
            }
            println!(
                "\nThe whole demonstration took {:.0} s. What to type next:\n",
                started.elapsed().as_secs_f64()
            );
            farewell(&target);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            if rig.is_none() {
                traces.remove();
            }
            drop(rig);
            Err(error.context("the demonstration failed; what it had started is removed"))
        }
    }
}

fn choose(arguments: &Arguments) -> Result<(Target, Options, String)> {
    let defaults = Options::default();
    let Some(kubeconfig) = &arguments.kubeconfig else {
        return Ok((Target::Rig, defaults, client::IMAGE.to_owned()));
    };
    let image =
        arguments.image.clone().context("--kubeconfig needs --image: your nodes must be able to pull it")?;
    let client = arguments.client_image.clone().context("--kubeconfig needs --client-image, too")?;
    let postgres = arguments.postgres_image.clone().context("--kubeconfig needs --postgres-image, too")?;
    let options = Options { image, postgres: vec![("17".to_owned(), postgres)] };
    let kubeconfig = std::path::absolute(kubeconfig).context("the path of the kubeconfig")?;
    Ok((Target::Own(kubeconfig), options, client))
}

fn show(target: &Target, options: &Options, client_image: &str, traces: &mut Traces) -> Result<()> {
    if matches!(target, Target::Rig) {
        command::run("build the images and load them into the nodes", this::xtask(["images", "load"])?)?;
    }
    traces.note_chart()?;
    deploy::run(target, options)?;
    namespace(target, traces)?;

    say("kubectl apply -f examples/minimal.yaml");
    let applied = Instant::now();
    let mut apply = target.kubectl(["apply", "--namespace", NAMESPACE, "--filename"])?;
    command::output(apply.arg(this::tree().join("examples/minimal.yaml")))?;
    let before = await_members(target, None).context("three members")?;
    done(&format!("three members after {:.1} s", applied.elapsed().as_secs_f64()));

    let client = client::start(target, client_image)?;
    done("a client writes through pgwrite, with new connections and with a kept one");
    println!("\nRoles before:\n{}", roles(target)?);

    say(&format!("kubectl delete pod {} --force --grace-period=0", before.name));
    let since = client::now();
    let force = ["delete", "pod", "--namespace", NAMESPACE, "--force", "--grace-period=0", "--wait=false"];
    let mut delete = target.kubectl(force)?;
    command::output(delete.arg(&before.name))?;
    let after = await_members(target, Some(&before)).context("three members again")?;
    // Asked for now, with another master there: an answer before the pod was dead would tell of no gap at all.
    let gaps = client.resumed(since)?;
    done(&format!("writes go on; {gaps}"));
    println!("\nRoles after:\n{}", roles(target)?);

    let verdict = client.judge()?;
    println!("{verdict}");
    println!("{gaps}; the master was {}, now it is {}", before.name, after.name);
    client.remove()
}

/// A master's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Master {
    name: String,
    uid: String,
}

/// Waits until three ready members are labelled, one of them as the master, which is not `former`'s very pod.
fn await_members(target: &Target, former: Option<&Master>) -> Result<Master> {
    until(|| {
        let mut get = target.kubectl([
            "get",
            "pods",
            "--namespace",
            NAMESPACE,
            "--output=json",
            "--selector",
            MEMBERS,
        ])?;
        let pods: Value = serde_json::from_str(&command::output(&mut get)?).context("reading the pods")?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let text = |pod: &Value, pointer: &str| {
            pod.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned()
        };
        let ready = |pod: &&Value| {
            let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
            conditions
                .is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
        };
        let role =
            |wanted: &str| pods.iter().filter(|pod| text(pod, "/metadata/labels/role") == wanted).count();
        let seen: Vec<String> = pods
            .iter()
            .map(|pod| {
                let state = if ready(&pod) { "ready" } else { "not ready" };
                format!("{} {} {state}", text(pod, "/metadata/name"), text(pod, "/metadata/labels/role"))
            })
            .collect();
        let whole = pods.iter().filter(ready).count() == 3 && role("master") == 1 && role("replica") == 2;
        let master = pods
            .iter()
            .find(|pod| text(pod, "/metadata/labels/role") == "master")
            .map(|pod| Master { name: text(pod, "/metadata/name"), uid: text(pod, "/metadata/uid") });
        match master {
            Some(master) if whole && former.is_none_or(|former| former.uid != master.uid) => Ok(Ok(master)),
            _ => Ok(Err(seen.join(", "))),
        }
    })
}

fn roles(target: &Target) -> Result<String> {
    let get = ["get", "pods", "--namespace", NAMESPACE, "--selector", MEMBERS, "--label-columns", "role"];
    command::output(&mut target.kubectl(get)?)
}

/// Makes the namespace, after removing that of an earlier demonstration.
fn namespace(target: &Target, traces: &mut Traces) -> Result<()> {
    remove_namespace(target)?;
    let manifest = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    traces.namespace = true;
    command::feed(&mut target.kubectl(["create", "--filename", "-"])?, manifest.to_string().as_bytes())?;
    Ok(())
}

fn remove_namespace(target: &Target) -> Result<()> {
    let exists =
        target.kubectl(["get", "namespace", NAMESPACE])?.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !exists.context("asking for the namespace")?.success() {
        return Ok(());
    }
    let patch = r#"{"spec":{"deletionPolicy":"Delete"}}"#;
    let kind = "postgrescluster";
    // Neither may exist any more.
    let _ = command::output(&mut target.kubectl([
        "patch",
        kind,
        CLUSTER,
        "--namespace",
        NAMESPACE,
        "--type=merge",
        "--patch",
        patch,
    ])?);
    let _ = command::output(&mut target.kubectl([
        "delete",
        kind,
        "--all",
        "--namespace",
        NAMESPACE,
        "--timeout=120s",
    ])?);
    let delete = target.kubectl(["delete", "namespace", NAMESPACE, "--timeout=180s"])?;
    command::run("remove the namespace of an earlier demonstration", delete)
}

/// What must be removed when a step fails on a cluster that was there before.
struct Traces {
    target: Target,
    chart: bool,
    namespace: bool,
}

impl Traces {
    /// Notes whether the chart is not installed yet and therefore ours to remove.
    fn note_chart(&mut self) -> Result<()> {
        let mut status = self.target.helm(["status", deploy::RELEASE, "--namespace", deploy::NAMESPACE])?;
        let status = status.stdout(Stdio::null()).stderr(Stdio::null()).status();
        self.chart = !status.context("asking for the chart")?.success();
        Ok(())
    }

    fn remove(&self) {
        let mut outcomes = Vec::new();
        if self.namespace {
            outcomes.push(remove_namespace(&self.target));
        }
        if self.chart {
            let uninstall = self.target.helm([
                "uninstall",
                deploy::RELEASE,
                "--ignore-not-found",
                "--namespace",
                deploy::NAMESPACE,
            ]);
            outcomes.push(uninstall.and_then(|mut helm| command::output(&mut helm).map(drop)));
        }
        for error in outcomes.into_iter().filter_map(Result::err) {
            eprintln!("error: removing what was started: {error:#}");
        }
    }
}

fn farewell(target: &Target) {
    match target {
        Target::Rig => {
            println!("  eval \"$(cargo xtask rig env)\"");
            println!("  kubectl --namespace {NAMESPACE} get postgresclusters,pods --label-columns role");
            println!("  kubectl --namespace {NAMESPACE} exec -it {CLUSTER}-0 -- psql --username postgres");
            println!("  cargo xtask rig down          # removes all of it");
        }
        Target::Own(kubeconfig) => {
            println!("  export KUBECONFIG={}", kubeconfig.display());
            println!("  kubectl --namespace {NAMESPACE} get postgresclusters,pods --label-columns role");
            println!("  kubectl delete namespace {NAMESPACE}");
            println!("  helm uninstall {} --namespace {}", deploy::RELEASE, deploy::NAMESPACE);
        }
    }
}

/// Looks until there is an answer; then fails with what was seen last.
fn until<T>(mut look: impl FnMut() -> Result<std::result::Result<T, String>>) -> Result<T> {
    let started = Instant::now();
    loop {
        let seen = match look() {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if started.elapsed() > BOUND {
            bail!("not within {} s; last seen: {seen}", BOUND.as_secs());
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn say(text: &str) {
    eprintln!("… {text}");
}

fn done(text: &str) {
    eprintln!("✓ {text}");
}

/// Fails unless every acknowledged row was found.
fn all_found(lost: u64, doubled: u64, phantoms: u64) -> Result<()> {
    ensure!(lost == 0, "{lost} acknowledged rows are lost");
    ensure!(doubled == 0, "{doubled} rows are there more than once");
    ensure!(phantoms == 0, "{phantoms} rows are there that were refused or never attempted");
    Ok(())
}
