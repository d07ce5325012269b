//! The one table of parameters that users do not set, and of those with a floor; and the rule for lines of [`hba`].
//!
//! Decides what the protocol owns (ha-protocol §2 "Settings"): what durability, the election, access or our reading of
//! logs rests on. The API's admission rules and the agent's rendering both take it from here, so that what one accepts the
//! other never refuses. It has no dependency, since neither of its users may know the other. Proved by `tests`.

pub mod hba;

/// Parameters that the operator owns, whatever their value. Lower case, sorted; the API server compares with these.
pub const OWNED: &[&str] = &[
    "allow_alter_system",
    "allow_in_place_tablespaces",
    "allow_system_table_mods",
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "archive_timeout",
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
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_init_sync_method",
    "recovery_min_apply_delay",
    "recovery_prefetch",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restart_after_crash",
    "restore_command",
    "shared_preload_libraries",
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_crl_dir",
    "ssl_crl_file",
    "ssl_key_file",
    "ssl_passphrase_command",
    "ssl_passphrase_command_supports_reload",
    "sync_replication_slots",
    "synchronized_standby_slots",
    "synchronous_commit",
    "synchronous_standby_names",
    "trace_recovery_messages",
    "trace_sort",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_consistency_checking",
    "wal_level",
    "wal_log_hints",
    "wal_receiver_create_temp_slot",
    "wal_receiver_status_interval",
    "wal_receiver_timeout",
    "wal_retrieve_retry_interval",
    "wal_sender_timeout",
    "wal_sync_method",
    "zero_damaged_pages",
];

/// Every parameter whose name starts so is owned as well. Only code compares with these: a rule on the API server would
/// have to pass over all keys (K23).
pub const OWNED_PREFIXES: &[&str] =
    &["debug_", "krb_", "primary_", "recovery_", "ssl", "synchronous_", "syslog_", "wal_debug"];

/// Parameters that users may set, but not below this: replication needs them from birth.
pub const MINIMUMS: &[(&str, u64)] = &[("max_replication_slots", 20), ("max_wal_senders", 20)];

/// Whether the operator owns a parameter. Names are the same in upper and lower case, as in PostgreSQL.
#[must_use]
pub fn is_owned(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    OWNED.binary_search(&name.as_str()).is_ok()
        || OWNED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The least value of a parameter, when the value is below it or is no whole number.
#[must_use]
pub fn too_low(name: &str, value: &str) -> Option<u64> {
    let name = name.to_ascii_lowercase();
    let &(_, least) = MINIMUMS.iter().find(|(minimum, _)| *minimum == name)?;
    let enough = value.trim().parse::<u64>().is_ok_and(|value| value >= least);
    (!enough).then_some(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_protocol_rests_on_is_owned_in_any_case() {
        for name in [
            "fsync",
            "FSYNC",
            "Synchronous_Standby_Names",
            "primary_conninfo",
            "restore_command",
            "ssl_ciphers",
        ] {
            assert!(is_owned(name), "{name}");
        }
        for name in ["shared_buffers", "work_mem", "hot_standby_feedback", "pg_stat_statements.max"] {
            assert!(!is_owned(name), "{name}");
        }
    }

    #[test]
    fn floors_hold_for_whatever_is_written() {
        assert_eq!(too_low("Max_Wal_Senders", "19"), Some(20));
        assert_eq!(too_low("max_wal_senders", "many"), Some(20));
        assert_eq!(too_low("max_wal_senders", " 20 "), None);
        assert_eq!(too_low("work_mem", "1"), None);
    }

    #[test]
    fn the_table_is_sorted_and_lower_case() {
        assert!(OWNED.is_sorted() && OWNED_PREFIXES.is_sorted());
        assert!(OWNED.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(OWNED.iter().all(|name| name.to_ascii_lowercase() == **name));
    }
}
