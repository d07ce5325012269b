//! `pg_hba.conf` and `pg_ident.conf`: who may connect, and as whom.
//!
//! Decides two variants: open, and the gate that admits only the agent and replication (§4 step 6, I13). Must never
//! admit replication without a certificate of this cluster (I10), nor let a user's line stand before ours or become
//! two. Refusals are `reject` lines, so that clients see 28000 (P25). Proved by `tests` and `tests/servers/gate.rs`.

use std::collections::BTreeSet;
use std::fmt::Write;

use ha::Incarnation;
use parameters::hba::{self, Refused};

/// The superuser inside PostgreSQL; the agent logs in as it over the Unix socket.
pub const SUPERUSER: &str = "postgres";
/// The operating system's name of the UID that both the agent and PostgreSQL run as (P26).
pub const OS_USER: &str = "postgres";
/// The role whose members are the replication roles `m_…`; the common name of their certificate too.
pub const MEMBER_GROUP: &str = "matriarch_replication";
/// The map from that certificate to the members' roles.
pub const MEMBER_MAP: &str = "matriarch_members";
/// The map from the operating system's user to the superuser.
const AGENT_MAP: &str = "matriarch";

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The agent, the members, and everybody the user admits.
    Open,
    /// The gate: the agent and replication only.
    Closed,
}

/// A user's line, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HbaLine(String);

/// A user's line is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line:?} {why}")]
pub struct HbaLineError {
    /// As it was written.
    line: String,
    /// What is wrong with it.
    why: Refused,
}

impl HbaLine {
    /// Checks that it is one line of a known type. Whether PostgreSQL likes the rest, `pg_hba_file_rules` says.
    pub fn new(text: &str) -> Result<Self, HbaLineError> {
        let line = || text.trim_end_matches([' ', '\t']).to_owned();
        hba::check(text).map_err(|why| HbaLineError { line: line(), why })?;
        Ok(Self(line()))
    }

    /// The line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Both files' content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hba {
    /// Open or the gate.
    pub access: Access,
    /// The operating system's name of our own UID: [`OS_USER`] in pods.
    pub os_user: String,
    /// Common name of the members' client certificate.
    pub member_common_name: String,
    /// The members whose roles that certificate may take.
    pub members: BTreeSet<Incarnation>,
    /// The user's lines, after ours.
    pub user_lines: Vec<HbaLine>,
}

impl Hba {
    /// The closed gate for no members, as a member is born.
    pub fn closed() -> Self {
        Self {
            access: Access::Closed,
            os_user: OS_USER.to_owned(),
            member_common_name: MEMBER_GROUP.to_owned(),
            members: BTreeSet::new(),
            user_lines: Vec::new(),
        }
    }

    /// The same with this access.
    #[must_use]
    pub fn with_access(&self, access: Access) -> Self {
        Self { access, ..self.clone() }
    }

    /// `pg_hba.conf`.
    pub fn render(&self) -> String {
        let mut out = String::from("# Rendered by the agent; edits are lost.\n");
        let mut add = |text: &str| {
            out.push_str(text);
            out.push('\n');
        };
        add(&format!("local all {SUPERUSER} peer map={AGENT_MAP}"));
        add(&format!("local replication {SUPERUSER} peer map={AGENT_MAP}"));
        add(&format!("hostssl replication +{MEMBER_GROUP} all cert map={MEMBER_MAP}"));
        if self.access == Access::Open {
            // A rewind reads files through SQL functions; nobody rewinds from a master with a closed gate (I12).
            add(&format!("hostssl {SUPERUSER} +{MEMBER_GROUP} all cert map={MEMBER_MAP}"));
        }
        // I10: a member's role by certificate or not at all, replication by members or not at all. The superuser is no
        // member here: PostgreSQL asks for membership without its privilege.
        add(&format!("host all +{MEMBER_GROUP} all reject"));
        add("host replication all all reject");
        match self.access {
            Access::Closed => {
                add("local all all reject");
                add("host all all all reject");
            }
            Access::Open => {
                for line in &self.user_lines {
                    add(line.as_str());
                }
                add("hostssl all all all scram-sha-256");
            }
        }
        out
    }

    /// `pg_ident.conf`. One line per member: patterns for role names exist only from 16 on.
    pub fn render_ident(&self) -> String {
        let mut out = String::from("# Rendered by the agent; edits are lost.\n");
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{AGENT_MAP} {} {SUPERUSER}", quote(&self.os_user));
        for member in &self.members {
            let role = ha::types::application_name(*member);
            let _ = writeln!(out, "{MEMBER_MAP} {} {role}", quote(&self.member_common_name));
        }
        out
    }
}

/// A quoted word. A leading slash would make it a pattern even in quotes, and a line break would end the line: both
/// name nobody.
fn quote(text: &str) -> String {
    if text.starts_with('/') || text.chars().any(char::is_control) {
        return "\"\"".to_owned();
    }
    format!("\"{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p21_the_gate_admits_the_agent_and_replication_only() {
        let mut hba = Hba::closed();
        hba.user_lines = vec![HbaLine::new("host all all 10.0.0.0/8 trust").unwrap()];
        let closed = hba.render();
        assert!(!closed.contains("trust") && !closed.contains("scram"));
        assert!(closed.ends_with("local all all reject\nhost all all all reject\n"));
        let open = hba.with_access(Access::Open).render();
        let place = |text: &str| open.find(text).unwrap();
        assert!(place("host replication all all reject") < place("trust"));
        assert!(place("trust") < place("hostssl all all all scram-sha-256"));
    }

    #[test]
    fn i10_each_member_has_its_own_role_and_map_line() {
        let mut hba = Hba::closed();
        hba.members = [Incarnation(1), Incarnation(2)].into();
        let ident = hba.render_ident();
        assert!(ident.contains("matriarch \"postgres\" postgres\n"));
        assert!(ident.contains("matriarch_members \"matriarch_replication\" m_0000000000000001\n"));
        assert_eq!(ident.lines().count(), 4);
        hba.os_user = "/^.*$".into();
        assert!(hba.render_ident().contains("matriarch \"\" postgres"));
    }

    #[test]
    fn a_users_line_is_checked_and_its_refusal_shows_it() {
        assert_eq!(HbaLine::new("host all all all reject \t").unwrap().as_str(), "host all all all reject");
        let error = HbaLine::new("host all @users all trust").unwrap_err().to_string();
        assert_eq!(
            error,
            "\"host all @users all trust\" must not read another file (@file); write the names themselves"
        );
    }
}
