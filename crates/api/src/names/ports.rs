//! Ports of a member's pod.

/// PostgreSQL.
pub const POSTGRES: u16 = 5432;
/// The name of [`POSTGRES`] in Services and slices; both must use the same one (K2).
pub const POSTGRES_NAME: &str = "postgres";
/// The tiny listener of PID 1, which answers `/livez` (K7).
pub const LIVE: u16 = 8007;
/// The name of [`LIVE`].
pub const LIVE_NAME: &str = "live";
/// The agent's `/readyz`, `/metrics` and `/status`.
pub const HTTP: u16 = 8008;
/// The name of [`HTTP`].
pub const HTTP_NAME: &str = "http";
/// The channel between agents, mutual TLS.
pub const PEER: u16 = 8009;
/// The name of [`PEER`].
pub const PEER_NAME: &str = "peer";
