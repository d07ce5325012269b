//! `postgresql.auto.conf`: what the protocol rests on, owned by the agent.
//!
//! Decides every setting of §2 and of the member's present role. Must never render an empty
//! `synchronous_standby_names` unless the leader is known to be alone, and never a `restore_command` that could slow a
//! promotion (P17). Proved by `tests` and `tests/servers/settings.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ha::{Incarnation, Names};

use super::names::{UnknownNames, render_names};
use super::{SettingsError, line};
use crate::binaries::Major;
use crate::command::controldata::ControlData;
use crate::conninfo::{Purpose, Upstream};
use crate::layout::Layout;
use crate::log::LINE_PREFIX;

/// How much the WAL tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WalLevel {
    /// Enough for physical standbys.
    #[default]
    Replica,
    /// For logical decoding as well.
    Logical,
}

/// What happens to a finished segment of the WAL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Archive {
    /// Nothing.
    #[default]
    Off,
    /// This `archive_command` gets it.
    Command(String),
    /// Archiving is on and waits: during a stop, which a slow command would hold up (P17).
    Held,
}

/// The server's certificate, its key, and the authority that client certificates must come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// The server certificate (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM), mode 0600.
    pub key: PathBuf,
    /// The authorities of client certificates (PEM).
    pub authority: PathBuf,
}

/// The protocol's part of one member's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Protocol {
    /// The server's major version: some parameters exist only in some.
    pub major: Major,
    /// Addresses to listen on; `*` in pods.
    pub listen_addresses: String,
    /// Port and socket directory.
    pub layout: Layout,
    /// Shown in process titles and logs.
    pub cluster_name: String,
    /// TLS of the server; none only in tests.
    pub tls: Option<ServerTls>,
    /// How much the WAL tells.
    pub wal_level: WalLevel,
    /// Who must have flushed a commit. Never [`Names::Unknown`] when rendered.
    pub names: Names,
    /// This member's incarnation: its name towards an upstream, and its slot there.
    pub incarnation: Incarnation,
    /// Whom to stream from; none renders an empty `primary_conninfo`, which is what a seal is made of.
    pub upstream: Option<Upstream>,
    /// What happens to finished segments.
    pub archive: Archive,
    /// P19: values that a standby must not be below, from its control file.
    pub floors: BTreeMap<String, u64>,
}

impl Protocol {
    /// The settings of a member before it has any role: it streams from nobody and nobody can acknowledge for it.
    pub fn new(
        major: Major,
        layout: Layout,
        incarnation: Incarnation,
        cluster_name: impl Into<String>,
    ) -> Self {
        Self {
            major,
            listen_addresses: "*".to_owned(),
            layout,
            cluster_name: cluster_name.into(),
            tls: None,
            wal_level: WalLevel::Replica,
            names: Names::Placeholder,
            incarnation,
            upstream: None,
            archive: Archive::Off,
            floors: BTreeMap::new(),
        }
    }

    /// The file. Its last line of each parameter wins over `postgresql.conf`.
    pub fn render(&self) -> Result<String, SettingsError> {
        let mut out =
            String::from("# Rendered by the agent before every start and reload; edits are lost.\n");
        for (key, value) in self.lines()? {
            line(&mut out, key, &value)?;
        }
        for (key, value) in &self.floors {
            line(&mut out, key, &value.to_string())?;
        }
        Ok(out)
    }

    fn lines(&self) -> Result<Vec<(&'static str, String)>, UnknownNames> {
        let fixed = |value: &str| value.to_owned();
        let mut lines = vec![
            ("cluster_name", fixed(cut(&self.cluster_name))),
            ("listen_addresses", self.listen_addresses.clone()),
            ("port", self.layout.port().to_string()),
            ("unix_socket_directories", self.layout.run().to_string_lossy().into_owned()),
            ("unix_socket_permissions", fixed("0700")),
            // Durability of what was acknowledged.
            ("fsync", fixed("on")),
            ("full_page_writes", fixed("on")),
            ("synchronous_commit", fixed("on")),
            ("synchronous_standby_names", render_names(&self.names)?),
            ("data_sync_retry", fixed("off")),
            // A crash of a backend ends the server: only a start that passes the gate may serve again (I13).
            ("restart_after_crash", fixed("off")),
            // Replication.
            ("wal_level", fixed(if self.wal_level == WalLevel::Logical { "logical" } else { "replica" })),
            ("hot_standby", fixed("on")),
            ("wal_log_hints", fixed("on")),
            ("wal_sender_timeout", fixed("5s")),
            ("wal_receiver_timeout", fixed("5s")),
            ("wal_retrieve_retry_interval", fixed("100ms")),
            ("wal_receiver_status_interval", fixed("1s")),
            ("archive_mode", fixed(if self.archive == Archive::Off { "off" } else { "on" })),
            (
                "archive_command",
                match &self.archive {
                    Archive::Command(command) => command.clone(),
                    Archive::Off | Archive::Held => String::new(),
                },
            ),
            ("restore_command", String::new()),
            ("recovery_end_command", String::new()),
            ("recovery_target_timeline", fixed("latest")),
            ("recovery_min_apply_delay", fixed("0")),
            // Access.
            ("password_encryption", fixed("scram-sha-256")),
            ("hba_file", self.layout.data().join("pg_hba.conf").to_string_lossy().into_owned()),
            ("ident_file", self.layout.data().join("pg_ident.conf").to_string_lossy().into_owned()),
            // Logs go to the agent line by line (see `log`).
            ("log_destination", fixed("stderr")),
            ("logging_collector", fixed("off")),
            ("log_line_prefix", fixed(LINE_PREFIX)),
            ("log_timezone", fixed("UTC")),
            ("lc_messages", fixed("C")),
        ];
        match &self.tls {
            Some(tls) => {
                let path = |p: &PathBuf| p.to_string_lossy().into_owned();
                lines.push(("ssl", fixed("on")));
                lines.push(("ssl_cert_file", path(&tls.certificate)));
                lines.push(("ssl_key_file", path(&tls.key)));
                lines.push(("ssl_ca_file", path(&tls.authority)));
                lines.push(("ssl_min_protocol_version", fixed("TLSv1.2")));
            }
            None => lines.push(("ssl", fixed("off"))),
        }
        if crate::facts::alter_system_can_be_refused(self.major) {
            lines.push(("allow_alter_system", fixed("off")));
        }
        let stream = |u: &Upstream| u.conninfo(self.incarnation, Purpose::Stream, None);
        lines.push(("primary_conninfo", self.upstream.as_ref().map(stream).unwrap_or_default()));
        let slot = self.upstream.as_ref().map(|_| ha::types::application_name(self.incarnation));
        lines.push(("primary_slot_name", slot.unwrap_or_default()));
        Ok(lines)
    }

    /// What a running server must show for each parameter, to be compared after a reload (P15).
    pub fn expected(&self) -> Result<BTreeMap<&'static str, String>, UnknownNames> {
        Ok(self.lines()?.into_iter().collect())
    }

    /// The same settings for a member that streams from nobody: the seal (§4 step 3a).
    #[must_use]
    pub fn sealed(&self) -> Self {
        Self { upstream: None, ..self.clone() }
    }
}

/// PostgreSQL cuts `cluster_name` at 63 bytes; cut here so that what is shown equals what was written.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(63);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default()
}

/// P19: the values of its last master that a standby must not be below, where the user's own are lower.
///
/// `wanted` is what `postgresql.conf` says. A standby that met a higher value pauses, and promoting it there shuts it
/// down; with these floors it starts as high as its WAL demands.
pub fn floors(control: &ControlData, wanted: &BTreeMap<String, String>) -> BTreeMap<String, u64> {
    let built_in = |name: &str| match name {
        "max_connections" => 100,
        "max_locks_per_transaction" => 64,
        "max_worker_processes" => 8,
        "max_wal_senders" => 10,
        _ => 0,
    };
    control
        .standby_floors
        .iter()
        .filter(|(name, needed)| {
            let own = wanted.get(*name).and_then(|v| v.trim().parse().ok()).unwrap_or_else(|| built_in(name));
            own < **needed
        })
        .map(|(name, needed)| (name.clone(), *needed))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::SettingError;
    use super::*;
    use crate::conninfo::ClientTls;

    fn protocol() -> Protocol {
        Protocol::new(Major(17), Layout::new("/v"), Incarnation(1), "pg")
    }

    #[test]
    fn a_newborn_member_waits_for_nobody_real_and_streams_from_nobody() {
        let file = protocol().render().unwrap();
        assert!(file.contains("synchronous_standby_names = 'ANY 1 (\"matriarch_nobody\")'"));
        assert!(file.contains("primary_conninfo = ''\n") && file.contains("primary_slot_name = ''\n"));
        assert!(file.contains("allow_alter_system = 'off'"));
        assert!(file.contains("restart_after_crash = 'off'"));
        let old = Protocol { major: Major(15), ..protocol() };
        assert!(!old.render().unwrap().contains("allow_alter_system"));
    }

    #[test]
    fn sealing_takes_the_upstream_and_nothing_else() {
        let tls = ClientTls { certificate: "/c".into(), key: "/k".into(), authority: "/a".into() };
        let upstream =
            Upstream { address: "::1".parse().unwrap(), server_name: "pg-0".into(), port: 5432, tls };
        let following = Protocol { upstream: Some(upstream), ..protocol() };
        let file = following.render().unwrap();
        assert!(file.contains("primary_slot_name = 'm_0000000000000001'"));
        assert!(file.contains("application_name=''m_0000000000000001''"));
        assert_eq!(following.sealed().render().unwrap(), protocol().render().unwrap());
    }

    #[test]
    fn unknown_names_render_nothing() {
        let unknown = Protocol { names: Names::Unknown, ..protocol() };
        assert!(matches!(unknown.render(), Err(SettingsError::Names(_))));
    }

    #[test]
    fn a_newline_in_a_cluster_name_is_refused() {
        let bad = Protocol { cluster_name: "a\nb".into(), ..protocol() };
        assert!(matches!(bad.render(), Err(SettingsError::Render(SettingError::Value(_)))));
    }

    #[test]
    fn everything_we_set_is_refused_from_users() {
        for (key, _) in protocol().lines().unwrap() {
            let owned = super::super::refused(key, "x").is_some();
            assert!(owned || key == "wal_receiver_status_interval", "{key}");
        }
    }
}
