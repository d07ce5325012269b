//! A real Kubernetes of several nodes on this machine, in network namespaces of its own that have no way out.
//!
//! `up` builds what is missing and starts it, `down` removes every trace, the rest looks at it or breaks it.
//! Everything it keeps lies below `$MATRIARCH_CACHE/rig`.

mod boot;
mod cgroup;
mod control;
mod down;
mod layout;
mod net;
mod node;
mod pki;
mod process;
mod relay;
mod status;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Subcommand, ValueEnum};
use rustix::process::Signal;

use crate::cache::Cache;
use crate::command;
use crate::golang::Programs;
pub(crate) use layout::CONTROLLER;
use layout::{Layout, Node};

/// What to do with the rig.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start it; builds what is missing, repairs what has died, otherwise does nothing.
    Up(up::Wanted),
    /// Remove it: every process, namespace, mount and control group.
    Down,
    /// Say how every part of it is; fails unless all is well.
    Status,
    /// Print the variables that point other programs to it.
    Env,
    /// Run kubectl as the administrator.
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run Helm as the administrator.
    Helm {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a shell, or another program, inside a node.
    Shell {
        node: Node,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Break a node or mend it.
    Node {
        #[arg(value_enum)]
        fault: NodeFault,
        node: Node,
    },
    /// Stop the API server as it stands, or let it go on.
    Api {
        #[arg(value_enum)]
        fault: ApiFault,
    },
    /// Show the log of a component; without a name, list them.
    Logs {
        component: Option<String>,
        /// Go on as it grows.
        #[arg(long, short)]
        follow: bool,
        /// How many lines.
        #[arg(long, short = 'n', default_value_t = 100)]
        lines: u32,
    },
    #[command(hide = true)]
    Relay {
        #[arg(long)]
        port: u16,
    },
    #[command(hide = true)]
    Boot {
        node: Node,
        #[arg(long)]
        kube: PathBuf,
        #[arg(long)]
        containerd: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum NodeFault {
    /// Pull its network cable.
    Cut,
    /// Plug it in again.
    Heal,
    /// Cut its power.
    Kill,
    /// Boot it again.
    Start,
    /// Stop all its pods as they stand.
    Freeze,
    /// Let them go on.
    Thaw,
}

#[derive(Clone, Copy, ValueEnum)]
enum ApiFault {
    /// SIGSTOP: connections are accepted and never answered.
    Stop,
    /// SIGCONT.
    Cont,
}

/// Does one thing with the rig.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    layout::check_instance()?;
    let layout = Layout::new(Cache::open()?);
    match arguments.action {
        Action::Up(wanted) => up::run(&layout, &wanted)?,
        Action::Down => down::run(&layout)?,
        Action::Status => return status::run(&layout),
        Action::Env => {
            layout.running()?;
            println!("export KUBECONFIG={}", layout.kubeconfig().display());
            println!("export PATH={}:$PATH", layout.home().join("bin").display());
        }
        Action::Kubectl { arguments } => {
            let mut kubectl = control::kubectl(&layout, &programs(&layout)?);
            return command::replace(kubectl.args(arguments));
        }
        Action::Helm { arguments } => {
            let mut helm = command::command(&programs(&layout)?.helm, arguments);
            return command::replace(helm.env("KUBECONFIG", layout.kubeconfig()));
        }
        Action::Shell { node, command } => {
            let mut inside = node::inside(&layout, node)?;
            let command = if command.is_empty() { vec!["bash".to_owned()] } else { command };
            inside.args(command).env("CONTAINERD_NAMESPACE", "k8s.io");
            let path = std::env::var("PATH").unwrap_or_default();
            inside.env("PATH", format!("{}:{path}", programs(&layout)?.containerd.display()));
            return command::replace(&mut inside);
        }
        Action::Node { fault, node } => break_node(&layout, fault, node)?,
        Action::Api { fault } => {
            layout.running()?;
            let server = process::recorded(&layout, "apiserver").filter(|server| server.alive());
            let server = server.context("the API server does not run")?;
            server.signal(match fault {
                ApiFault::Stop => Signal::STOP,
                ApiFault::Cont => Signal::CONT,
            });
        }
        Action::Logs { component, follow, lines } => return logs(&layout, component, follow, lines),
        Action::Relay { port } => match relay::run(port)? {},
        Action::Boot { node, kube, containerd } => match boot::run(&layout, node, &kube, &containerd)? {},
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads archives into every running node.
pub(crate) fn load_images(cache: &Cache, archives: &[PathBuf]) -> Result<()> {
    let layout = Layout::new(cache.clone());
    let record = layout.running()?;
    let ctr = programs(&layout)?.containerd.join("ctr");
    std::thread::scope(|scope| {
        let loads: Vec<_> = record
            .nodes()
            .filter(|node| node::running(&layout, *node))
            .map(|node| {
                let (layout, ctr) = (&layout, &ctr);
                scope.spawn(move || {
                    for archive in archives {
                        let mut import = node::inside(layout, node)?;
                        import.arg(ctr).args(["--namespace", "k8s.io", "images", "import"]).arg(archive);
                        command::output(&mut import)
                            .with_context(|| format!("loading images into {}", node.name()))?;
                    }
                    Ok(())
                })
            })
            .collect();
        loads.into_iter().try_for_each(|load| load.join().unwrap_or_else(|_| bail!("a thread died")))
    })
}

fn break_node(layout: &Layout, fault: NodeFault, node: Node) -> Result<()> {
    let record = layout.running()?;
    ensure!(node.0 <= record.nodes, "there is no {}; the rig has {} nodes", node.name(), record.nodes);
    match fault {
        NodeFault::Cut => node::cut(layout, node, true),
        NodeFault::Heal => node::cut(layout, node, false),
        NodeFault::Kill => node::kill(layout, node),
        NodeFault::Start => {
            let _lock = down::lock(layout)?;
            node::start(layout, &record, node)
        }
        NodeFault::Freeze => node::freeze(node, true),
        NodeFault::Thaw => node::freeze(node, false),
    }
}

fn programs(layout: &Layout) -> Result<Programs> {
    Ok(layout.running()?.programs)
}

fn logs(layout: &Layout, component: Option<String>, follow: bool, lines: u32) -> Result<ExitCode> {
    let live = layout.path("log");
    let directory = if live.exists() { live } else { layout.home().join("last-log") };
    let Some(component) = component else {
        let entries = std::fs::read_dir(&directory).context("there are no logs")?;
        let mut names: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".log")?.to_owned()))
            .collect();
        names.sort();
        println!("{}", names.join("\n"));
        return Ok(ExitCode::SUCCESS);
    };
    let mut tail = command::command("tail", ["-n", &lines.to_string()]);
    if follow {
        tail.arg("-F");
    }
    command::replace(tail.arg("--").arg(directory.join(format!("{component}.log"))))
}
