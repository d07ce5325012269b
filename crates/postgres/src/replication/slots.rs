//! One physical slot per member, on every electable member.
//!
//! Decides which slots there are. Must never drop one that is in use or not of ours. On a standby nobody reads from the
//! slots, so they are moved by hand, or they would hold WAL for ever. Proved by `tests/servers/life.rs`.

use std::collections::BTreeSet;

use ha::{Incarnation, Lsn};

use super::standbys::member_of;
use crate::session::{Session, SqlError, column, lsn_column};

/// One of our slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Whose.
    pub member: Incarnation,
    /// A walsender uses it.
    pub active: bool,
    /// WAL is kept from here; none when it keeps none.
    pub restart: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub status: Option<String>,
}

impl Slot {
    /// WAL that its member needs is gone: it must be rebuilt.
    pub fn is_lost(&self) -> bool {
        self.status.as_deref() == Some("lost")
    }
}

/// Every slot of a member.
pub async fn slots(session: &Session) -> Result<Vec<Slot>, SqlError> {
    const WHAT: &str = "list the slots";
    const QUERY: &str = "\
SELECT slot_name::text, active, restart_lsn::text, wal_status
  FROM pg_replication_slots WHERE slot_type = 'physical' ORDER BY slot_name";
    let mut found = Vec::new();
    for row in session.rows(WHAT, QUERY, &[]).await? {
        let name: String = column(WHAT, &row, 0)?;
        if let Some(member) = member_of(&name) {
            found.push(Slot {
                member,
                active: column(WHAT, &row, 1)?,
                restart: lsn_column(WHAT, &row, 2)?,
                status: column(WHAT, &row, 3)?,
            });
        }
    }
    Ok(found)
}

/// Makes the slots of these members that do not exist, keeping WAL from now on. Those made.
pub async fn ensure_slots(
    session: &Session,
    members: &BTreeSet<Incarnation>,
) -> Result<BTreeSet<Incarnation>, SqlError> {
    let present: BTreeSet<Incarnation> = slots(session).await?.into_iter().map(|s| s.member).collect();
    let missing: BTreeSet<Incarnation> = members.difference(&present).copied().collect();
    for member in &missing {
        let name = ha::types::application_name(*member);
        let make = "SELECT slot_name::text FROM pg_create_physical_replication_slot($1::text::name, true)";
        session.value::<String>("make a slot", make, &[&name]).await?;
    }
    Ok(missing)
}

/// Drops our slots of everybody but these members. Those in use stay; they are returned.
pub async fn drop_other_slots(
    session: &Session,
    members: &BTreeSet<Incarnation>,
) -> Result<Vec<Incarnation>, SqlError> {
    let mut kept = Vec::new();
    for slot in slots(session).await? {
        if members.contains(&slot.member) {
            continue;
        }
        // The server itself refuses a slot that has become active meanwhile.
        let name = ha::types::application_name(slot.member);
        let drop = "\
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
 WHERE slot_name = $1::text::name AND NOT active AND slot_type = 'physical'";
        if session.rows("drop a slot", drop, &[&name]).await?.is_empty() {
            kept.push(slot.member);
        }
    }
    Ok(kept)
}

/// On a standby: lets go of WAL that this member has flushed elsewhere already. Never moves a slot back, nor beyond
/// what this server has replayed.
pub async fn advance_slot(session: &Session, member: Incarnation, to: Lsn) -> Result<(), SqlError> {
    const ADVANCE: &str = "\
SELECT pg_replication_slot_advance(slot_name, least($2::text::pg_lsn, pg_last_wal_replay_lsn()))
  FROM pg_replication_slots
 WHERE slot_name = $1::text::name AND NOT active AND slot_type = 'physical'
   AND restart_lsn < least($2::text::pg_lsn, pg_last_wal_replay_lsn())";
    let name = ha::types::application_name(member);
    session.rows("move a slot", ADVANCE, &[&name, &to.to_string()]).await.map(|_| ())
}
