//! Paths inside a member's container.

/// The mount point of the data volume; promise, kept settings and PGDATA live in it.
pub const VOLUME: &str = "/var/lib/matriarch";
/// PGDATA, a sub-directory because the kubelet changes the mode of the mount point (architecture, StatefulSet traps).
pub const PGDATA: &str = "/var/lib/matriarch/pgdata";
/// Where the init container puts the agent.
pub const BIN: &str = "/matriarch/bin";
/// The agent in a member's container.
pub const AGENT: &str = "/matriarch/bin/matriarch-agent";
/// The agent in its own image.
pub const AGENT_IN_IMAGE: &str = "/usr/local/bin/matriarch-agent";
/// Where the init container writes the generated `passwd` and `group` (P26).
pub const ETC: &str = "/matriarch/etc";
/// The generated `passwd`, mounted over `/etc/passwd`.
pub const PASSWD: &str = "/matriarch/etc/passwd";
/// The generated `group`, mounted over `/etc/group`.
pub const GROUP: &str = "/matriarch/etc/group";
/// A memory volume to which certificates and keys are copied, mode 0600 (K10).
pub const TLS: &str = "/matriarch/tls";
/// PostgreSQL's Unix socket.
pub const SOCKET: &str = "/var/run/postgresql";
/// Where the token of the service account is, as client libraries expect it.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
