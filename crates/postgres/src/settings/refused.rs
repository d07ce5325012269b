//! The parameters that users do not set, and the ones with a floor.
//!
//! What the protocol owns is in the table of the crate `parameters`, which the API's admission rules take as well. Must
//! never let through what durability, the election, access or our reading of logs rests on. Proved by `tests`.

pub use ::parameters::{MINIMUMS, OWNED as REFUSED, OWNED_PREFIXES as REFUSED_PREFIXES};

/// P19: parameters that must not be lower on a standby than on the master whose WAL it replays.
pub const STANDBY_FLOORS: &[&str] = &[
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

/// Why a user's parameter is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It belongs to the operator.
    #[error("{0} is set by the operator and cannot be set by users")]
    Owned(String),
    /// It is below the least that replication needs.
    #[error("{name} must be a whole number of at least {least}")]
    TooLow {
        /// Which.
        name: String,
        /// The least value.
        least: u64,
    },
}

/// Says whether and why a user's parameter is refused. Names are compared in lower case, as PostgreSQL does.
pub fn refused(name: &str, value: &str) -> Option<Refusal> {
    let lower = || name.to_ascii_lowercase();
    if ::parameters::is_owned(name) {
        return Some(Refusal::Owned(lower()));
    }
    ::parameters::too_low(name, value).map(|least| Refusal::TooLow { name: lower(), least })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_protocol_rests_on_is_refused() {
        for name in [
            "fsync",
            "FSYNC",
            "full_page_writes",
            "wal_level",
            "hot_standby",
            "synchronous_commit",
            "synchronous_standby_names",
            "primary_conninfo",
            "primary_slot_name",
            "restore_command",
            "recovery_target_timeline",
            "recovery_min_apply_delay",
            "hba_file",
            "listen_addresses",
            "ssl_ca_file",
            "include",
            "restart_after_crash",
        ] {
            assert!(matches!(refused(name, "x"), Some(Refusal::Owned(_))), "{name}");
        }
        for name in ["shared_buffers", "work_mem", "hot_standby_feedback", "pg_stat_statements.max"] {
            assert_eq!(refused(name, "1"), None);
        }
        assert!(matches!(refused("max_wal_senders", "10"), Some(Refusal::TooLow { least: 20, .. })));
        assert_eq!(refused("max_wal_senders", "30"), None);
    }

    #[test]
    fn the_lists_are_sorted_and_lower_case() {
        assert!(REFUSED.is_sorted() && REFUSED_PREFIXES.is_sorted() && STANDBY_FLOORS.is_sorted());
        assert!(REFUSED.iter().all(|n| n.to_ascii_lowercase() == **n));
    }
}
