//! The parameters that users do not set, and the ones with a floor.
//!
//! Decides what the protocol owns. The API's admission rules use the same lists. Must never let through what durability,
//! the election, access or our reading of logs rests on. Proved by `tests`.

/// Parameters that the operator owns, whatever their value (§2).
pub const REFUSED: &[&str] = &[
    "allow_alter_system",
    "allow_in_place_tablespaces",
    "allow_system_table_mods",
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "autovacuum_start_daemon",
    "bonjour",
    "bonjour_name",
    "cluster_name",
    "config_file",
    "data_directory",
    "data_sync_retry",
    "event_source",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "ident_file",
    "ignore_checksum_failure",
    "ignore_invalid_pages",
    "ignore_system_indexes",
    "include",
    "include_dir",
    "include_if_exists",
    "lc_messages",
    "listen_addresses",
    "log_destination",
    "log_directory",
    "log_file_mode",
    "log_filename",
    "log_line_prefix",
    "log_rotation_age",
    "log_rotation_size",
    "log_timezone",
    "log_truncate_on_rotation",
    "logging_collector",
    "password_encryption",
    "port",
    "promote_trigger_file",
    "restart_after_crash",
    "restore_command",
    "shared_preload_libraries",
    "sync_replication_slots",
    "synchronized_standby_slots",
    "trace_recovery_messages",
    "trace_sort",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_consistency_checking",
    "wal_level",
    "wal_log_hints",
    "wal_receiver_create_temp_slot",
    "wal_receiver_timeout",
    "wal_retrieve_retry_interval",
    "wal_sender_timeout",
    "wal_sync_method",
    "zero_damaged_pages",
];

/// Every parameter whose name starts so is owned as well.
pub const REFUSED_PREFIXES: &[&str] =
    &["debug_", "krb_", "primary_", "recovery_", "ssl", "synchronous_", "syslog_", "wal_debug"];

/// Parameters that users may set, but not below this: replication needs them from birth (§2).
pub const MINIMUMS: &[(&str, u64)] = &[("max_replication_slots", 20), ("max_wal_senders", 20)];

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
    let name = name.to_ascii_lowercase();
    if REFUSED.contains(&name.as_str()) || REFUSED_PREFIXES.iter().any(|p| name.starts_with(p)) {
        return Some(Refusal::Owned(name));
    }
    let &(_, least) = MINIMUMS.iter().find(|(minimum, _)| *minimum == name)?;
    let enough = value.trim().parse::<u64>().is_ok_and(|v| v >= least);
    (!enough).then_some(Refusal::TooLow { name, least })
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
