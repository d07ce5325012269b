//! The sidecar's command line: every option of the sidecar whose place it takes, in both spellings, and its own.
//!
//! Old manifests must work with the image swapped (`tests::old_manifests_are_understood`): underscores count as hyphens, one
//! hyphen as two, switches may carry `=true`, and the options of the old logging library are taken and ignored.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{ArgAction, Parser};

/// Elects a leader among the pods of any application and tells it by HTTP.
#[derive(Debug, Clone, Parser)]
#[command(name = "matriarch-elector", version)]
pub struct Options {
    /// The name of the election: of the Lease that the candidates share.
    #[arg(long, env = "MATRIARCH_ELECTOR_ELECTION")]
    pub election: String,
    /// This candidate's name, which others are told; the pod's when left out.
    #[arg(long, env = "MATRIARCH_ELECTOR_ID")]
    pub id: Option<String>,
    /// The Lease's namespace; the pod's own when left out.
    #[arg(long, env = "MATRIARCH_ELECTOR_NAMESPACE")]
    pub election_namespace: Option<String>,
    /// How long a leader may be silent before another takes over, such as 10s or 1m30s; from 1s to 1h.
    #[arg(long, env = "MATRIARCH_ELECTOR_TTL", default_value = "10s", value_parser = duration)]
    pub ttl: Duration,
    /// Address of the answers; an empty one for none.
    #[arg(long, env = "MATRIARCH_ELECTOR_HTTP", default_value = "0.0.0.0:4040")]
    pub http: Listen,
    /// Uses the pod's service account and nothing else.
    #[arg(long, env = "MATRIARCH_ELECTOR_USE_CLUSTER_CREDENTIALS", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub use_cluster_credentials: bool,
    /// A kubeconfig; the environment's, else the pod's service account, when left out.
    #[arg(long, env = "MATRIARCH_ELECTOR_KUBECONFIG", conflicts_with = "use_cluster_credentials")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; its current one when left out.
    #[arg(long, env = "MATRIARCH_ELECTOR_CONTEXT", requires = "kubeconfig")]
    pub context: Option<String>,
    /// The higher, the sooner this candidate takes a free Lease. 0: it only watches and never leads.
    #[arg(long, env = "MATRIARCH_ELECTOR_PRIORITY", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub priority: u32,
    /// Lets others than the pod itself ask for a step-down.
    #[arg(long, env = "MATRIARCH_ELECTOR_ALLOW_REMOTE_STEP_DOWN", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub allow_remote_step_down: bool,
    /// Labels this pod with KEY=LEADER while it leads and KEY=FOLLOWER while it does not. Needs `POD_NAME` and `POD_UID`.
    #[arg(long, env = "MATRIARCH_ELECTOR_LABEL_PODS", value_name = "KEY=LEADER,FOLLOWER")]
    pub label_pods: Option<PodLabel>,
    /// Points this Service, which has no selector, at the leader. Needs `POD_NAME`,
    /// `POD_UID`, `POD_IP` and `NODE_NAME`.
    #[arg(long, env = "MATRIARCH_ELECTOR_SERVICE")]
    pub service: Option<String>,
    /// A command for when this pod begins to lead, ended with all its children when that is over. No shell: words between
    /// spaces, or a JSON list of strings.
    #[arg(long, env = "MATRIARCH_ELECTOR_EXEC_ON_LEAD", value_name = "COMMAND")]
    pub exec_on_lead: Option<Words>,
    /// A command for when this pod begins to follow, at its start too.
    #[arg(long, env = "MATRIARCH_ELECTOR_EXEC_ON_FOLLOW", value_name = "COMMAND")]
    pub exec_on_follow: Option<Words>,
    /// How long the command of --run may take to end after SIGTERM; never beyond the deadline.
    #[arg(long, env = "MATRIARCH_ELECTOR_RUN_GRACE", default_value = "5s", value_parser = duration)]
    pub run_grace: Duration,
    /// A command that runs only while this pod leads. Takes everything after it; from the environment as --exec-on-lead.
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_name = "COMMAND", trailing_var_arg = true)]
    pub run: Vec<String>,
    /// The pod's name.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// The pod's UID: a name alone is no identity.
    #[arg(long, env = "POD_UID")]
    pub pod_uid: Option<String>,
    /// The pod's addresses.
    #[arg(long, env = "POD_IP", value_delimiter = ',')]
    pub pod_ip: Vec<IpAddr>,
    /// The pod's node.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: Option<String>,
    #[command(flatten)]
    ignored: Ignored,
}

/// Options of the old sidecar's logging library: taken, so that manifests need no change, and ignored.
#[derive(Debug, Clone, clap::Args)]
struct Ignored {
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    alsologtostderr: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    logtostderr: Option<String>,
    #[arg(long, hide = true)]
    stderrthreshold: Option<String>,
    #[arg(short = 'v', long = "v", hide = true)]
    verbosity: Option<String>,
    #[arg(long, hide = true)]
    vmodule: Option<String>,
    #[arg(long, hide = true)]
    log_dir: Option<String>,
    #[arg(long, hide = true)]
    log_backtrace_at: Option<String>,
    #[arg(long, hide = true)]
    log_flush_frequency: Option<String>,
}

/// The variable for `--run`.
pub const RUN_VARIABLE: &str = "MATRIARCH_ELECTOR_RUN";

impl Options {
    /// Reads the command line of this process; prints what is wrong and ends it when it must.
    pub fn read() -> Self {
        let mut options = Self::parse_from(spelled(std::env::args_os()));
        if options.run.is_empty()
            && let Ok(text) = std::env::var(RUN_VARIABLE)
            && !text.trim().is_empty()
        {
            match text.parse::<Words>() {
                Ok(words) => options.run = words.0,
                Err(error) => {
                    eprintln!("error: {RUN_VARIABLE}: {error}");
                    std::process::exit(2);
                }
            }
        }
        options
    }
}

/// `_` to `-` in names of options, one leading hyphen to two; what belongs to `--run` stays as it is.
pub fn spelled(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut rest = false;
    let mut spelled = Vec::new();
    for (place, argument) in arguments.into_iter().enumerate() {
        let text = argument.to_str().filter(|_| place > 0 && !rest);
        let Some(bare) = text.and_then(|text| text.strip_prefix('-')) else {
            spelled.push(argument);
            continue;
        };
        let bare = bare.strip_prefix('-').unwrap_or(bare);
        let (name, value) = bare.split_once('=').map_or((bare, None), |(name, value)| (name, Some(value)));
        if name.len() < 2 {
            spelled.push(argument);
            continue;
        }
        let name = name.replace('_', "-");
        rest = name == "run";
        let text = match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        };
        spelled.push(text.into());
    }
    spelled
}

/// Go's form of a duration: numbers with units, such as `1m30s`, `500ms`, `10s`.
///
/// # Errors
/// When it is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 10s, 1m30s or 500ms");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        total += number
            * match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(wrong()),
            };
        rest = after;
    }
    Duration::try_from_secs_f64(total).map_err(|_| wrong())
}

/// Where to listen: `0.0.0.0:4040`, `:4040`, `localhost:4040`, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self(Some(address)));
        }
        let port = |host: &str| text.strip_prefix(host)?.strip_prefix(':')?.parse::<u16>().ok();
        if let Some(port) = port("") {
            return Ok(Self(Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))));
        }
        if let Some(port) = port("localhost") {
            return Ok(Self(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))));
        }
        Err(format!("{text:?} is no address such as 0.0.0.0:4040"))
    }
}

/// `key=leader,follower`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLabel {
    /// The label's name.
    pub key: String,
    /// Its value while the pod leads.
    pub leader: String,
    /// Its value while it does not.
    pub follower: String,
}

impl FromStr for PodLabel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |value: &str| {
            value.len() <= 63 && value.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
        };
        let parts = text.split_once('=').and_then(|(key, values)| Some((key, values.split_once(',')?)));
        match parts {
            Some((key, (leader, follower))) if !key.is_empty() && fits(leader) && fits(follower) => {
                Ok(Self { key: key.to_owned(), leader: leader.to_owned(), follower: follower.to_owned() })
            }
            _ => Err(format!("{text:?} is not of the form role=leader,follower with values of labels")),
        }
    }
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

impl FromStr for Words {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<String> = if text.trim_start().starts_with('[') {
            serde_json::from_str(text).map_err(|_| format!("{text:?} is no JSON list of strings"))?
        } else {
            text.split_whitespace().map(ToOwned::to_owned).collect()
        };
        if words.first().is_none_or(String::is_empty) {
            return Err("an empty command".to_owned());
        }
        Ok(Self(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn read(arguments: &[&str]) -> Result<Options, clap::Error> {
        let arguments = std::iter::once("matriarch-elector").chain(arguments.iter().copied());
        Options::try_parse_from(spelled(arguments.map(OsString::from)))
    }

    #[test]
    fn the_options_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn old_manifests_are_understood() {
        let old = read(&[
            "--election=example",
            "--id=web-0",
            "--election-namespace=shop",
            "--ttl=15s",
            "--http=0.0.0.0:4040",
            "--use-cluster-credentials=true",
            "--alsologtostderr=true",
            "--v=4",
        ])
        .unwrap();
        assert_eq!((old.election.as_str(), old.id.as_deref()), ("example", Some("web-0")));
        assert_eq!((old.ttl, old.use_cluster_credentials), (Duration::from_secs(15), true));
        let other = read(&[
            "-election",
            "example",
            "--election_namespace",
            "shop",
            "--use_cluster_credentials",
            "--http",
            "localhost:4040",
        ])
        .unwrap();
        assert!(other.use_cluster_credentials);
        assert_eq!(other.election_namespace.as_deref(), Some("shop"));
        assert_eq!(other.http.0.unwrap().to_string(), "127.0.0.1:4040");
        assert_eq!(read(&["--election=e", "--http="]).unwrap().http.0, None);
        assert_eq!(read(&["--election=e"]).unwrap().ttl, Duration::from_secs(10));
    }

    #[test]
    fn run_takes_the_rest_as_it_is() {
        let options =
            read(&["--election=e", "--ttl=5s", "--run", "server", "-p", "--some_thing", "--ttl=1"]).unwrap();
        assert_eq!(options.run, ["server", "-p", "--some_thing", "--ttl=1"]);
        assert_eq!(options.ttl, Duration::from_secs(5));
    }

    #[test]
    fn durations_are_gos() {
        for (text, millis) in
            [("10s", 10_000), ("1m30s", 90_000), ("500ms", 500), ("1.5s", 1500), ("1h", 3_600_000), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "10x", "-5s", "1m30"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_told() {
        assert!(read(&["--ttl=10s"]).unwrap_err().to_string().contains("--election"));
        assert!(read(&["--election=e", "--ttl=soon"]).unwrap_err().to_string().contains("no duration"));
        assert!(read(&["--election=e", "--http=everywhere"]).unwrap_err().to_string().contains("no address"));
        assert!(read(&["--election=e", "--label-pods=role"]).is_err());
        assert_eq!("role=leader,follower".parse::<PodLabel>().unwrap().follower, "follower");
        assert_eq!("notify --to x".parse::<Words>().unwrap().0, ["notify", "--to", "x"]);
        assert_eq!(r#"["say", "a b"]"#.parse::<Words>().unwrap().0, ["say", "a b"]);
        assert!("".parse::<Words>().is_err() && "[1]".parse::<Words>().is_err());
    }
}
