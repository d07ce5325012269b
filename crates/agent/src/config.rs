//! What a pod tells its agent: identity from the downward API, places from the image's conventions.
//!
//! Nothing here is a decision of the cluster's user; those arrive as [`ha::Settings`] and rendered settings.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use api::names::{paths, ports};
use clap::Args;
use ha::MemberName;

/// Flags and environment of `matriarch-agent run`.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// This pod.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Its namespace.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Its UID: the identity behind the name.
    #[arg(long, env = "POD_UID")]
    pub pod_uid: String,
    /// Its address.
    #[arg(long, env = "POD_IP")]
    pub pod_ip: IpAddr,
    /// Its node.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// The PostgresCluster.
    #[arg(long, env = "CLUSTER_NAME")]
    pub cluster: String,
    /// UID of the PostgresCluster.
    #[arg(long, env = "CLUSTER_UID", default_value = "")]
    pub cluster_uid: String,
    /// Places.
    #[command(flatten)]
    pub places: Places,
    /// The address on which the agent serves people and the kubelet.
    #[arg(long, env = "MATRIARCH_HTTP_LISTEN", default_value_t = any(ports::HTTP))]
    pub http_listen: SocketAddr,
    /// The address on which other agents are heard.
    #[arg(long, env = "MATRIARCH_PEER_LISTEN", default_value_t = any(ports::PEER))]
    pub peer_listen: SocketAddr,
    /// Where the `postgres` binary and its tools are; found on PATH and in the usual places when not given.
    #[arg(long, env = "MATRIARCH_PG_BIN")]
    pub pg_bin: Option<PathBuf>,
    /// The addresses on which PostgreSQL listens: all of the pod's. Several members on one machine need one each.
    #[arg(long, env = "MATRIARCH_PG_LISTEN", default_value = "*", hide = true)]
    pub pg_listen: String,
    /// Writes every decision with what it was made on to this file, from the agent's start on, until it has grown to
    /// 256 MiB: for `cargo xtask sim --replay`.
    #[arg(long, env = "MATRIARCH_DECISION_LOG")]
    pub decision_log: Option<PathBuf>,
}

/// Directories that both the supervisor and the agent need.
#[derive(Debug, Clone, Args)]
pub struct Places {
    /// The data volume.
    #[arg(long, env = "MATRIARCH_VOLUME", default_value = paths::VOLUME)]
    pub volume: PathBuf,
    /// PGDATA. Not taken from the variable of that name, which stock images set to a place of theirs.
    #[arg(long, env = "MATRIARCH_PGDATA", default_value = paths::PGDATA)]
    pub pgdata: PathBuf,
    /// The memory volume for certificates and keys.
    #[arg(long, env = "MATRIARCH_TLS_DIR", default_value = paths::TLS)]
    pub tls: PathBuf,
    /// The directory of PostgreSQL's Unix socket.
    #[arg(long, env = "MATRIARCH_SOCKET_DIR", default_value = paths::SOCKET)]
    pub socket: PathBuf,
}

impl Places {
    /// The directory on the volume, beside PGDATA, for the lock, the promise and kept settings.
    pub fn state(&self) -> PathBuf {
        self.volume.join("matriarch")
    }

    /// The lock that PID 1 holds for its lifetime.
    pub fn lock(&self) -> PathBuf {
        self.state().join("lock")
    }
}

impl Config {
    /// This member's name.
    pub fn member(&self) -> MemberName {
        MemberName(self.pod_name.clone())
    }

    /// The host name of a member of this cluster, which its certificates carry (K5).
    pub fn host_of(&self, member: &MemberName) -> String {
        api::names::member_host(&self.cluster, &self.namespace, &member.0)
    }
}

/// Flags and environment of `matriarch-agent supervise`.
#[derive(Debug, Clone, Args)]
pub struct SupervisorConfig {
    /// Places.
    #[command(flatten)]
    pub places: Places,
    /// The address of PID 1's own listener.
    #[arg(long, env = "MATRIARCH_LIVE_LISTEN", default_value_t = any(ports::LIVE))]
    pub live_listen: SocketAddr,
    /// The pod's terminationGracePeriodSeconds.
    #[arg(long, env = "MATRIARCH_TERMINATION_GRACE_SECONDS", default_value_t = 1800)]
    pub grace_seconds: u64,
    /// How long to wait for the volume's lock before the agent is started without it.
    #[arg(long, env = "MATRIARCH_LOCK_WAIT_SECONDS", default_value_t = 30)]
    pub lock_wait_seconds: u64,
    /// Runs this instead of `/proc/self/exe run` as the agent.
    #[arg(long, env = "MATRIARCH_AGENT_PROGRAM", hide = true)]
    pub agent_program: Option<PathBuf>,
}

impl SupervisorConfig {
    /// From SIGTERM to the fast stop when the agent has not finished, and from there to SIGKILL: together always
    /// below the grace period, after which the kubelet would kill the supervisor itself.
    pub fn termination_bounds(&self) -> (Duration, Duration) {
        let grace = Duration::from_secs(self.grace_seconds);
        let margin = (grace / 2).min(Duration::from_secs(30));
        (grace.saturating_sub(margin), margin / 2)
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        supervisor: SupervisorConfig,
    }

    #[test]
    fn the_last_kill_comes_before_the_kubelets() {
        for grace in [0, 1, 10, 30, 60, 1800] {
            let text = grace.to_string();
            let cli = Cli::parse_from(["x", "--grace-seconds", &text]);
            let (fast, kill) = cli.supervisor.termination_bounds();
            assert!(fast + kill <= Duration::from_secs(grace), "{grace}");
            assert!(grace == 0 || fast + kill < Duration::from_secs(grace), "{grace}");
        }
    }
}
