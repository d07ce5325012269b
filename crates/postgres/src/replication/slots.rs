//! One physical slot per member, on every electable member.
//!
//! Decides which slots there are. Must never drop one that is in use or not of ours. On a standby nobody reads from the
//! slots, so they are moved by hand, or they would hold WAL for ever. Proved by `tests/servers/members.rs`.

use std::collections::BTreeSet;

use ha::{Incarnation, Lsn};
use tokio_postgres::error::SqlState;

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

/// What became of the slots or roles of members that are gone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Dropped now.
    pub dropped: BTreeSet<Incarnation>,
    /// Not of the given members, and still in use: they stay until they are not.
    pub in_use: BTreeSet<Incarnation>,
}

/// Drops the slots `m_…` of everybody but these members, and of these only what nobody uses. Others' slots, logical ones
/// and those of clones are never touched.
///
/// `members` must hold every member of every electorate in the record, and those that are about to join: a slot that is
/// dropped too early costs its member a clone.
pub async fn drop_slots_except(
    session: &Session,
    members: &BTreeSet<Incarnation>,
) -> Result<Dropped, SqlError> {
    const DROP: &str = "\
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
 WHERE slot_name = $1::text::name AND NOT active AND slot_type = 'physical'";
    let mut outcome = Dropped::default();
    for slot in slots(session).await? {
        if members.contains(&slot.member) {
            continue;
        }
        let name = ha::types::application_name(slot.member);
        let dropped = match session.rows("drop a slot", DROP, &[&name]).await {
            Ok(rows) => !rows.is_empty(),
            // It became active, or went, between the look and the drop.
            Err(error)
                if error
                    .code()
                    .is_some_and(|c| [SqlState::OBJECT_IN_USE, SqlState::UNDEFINED_OBJECT].contains(c)) =>
            {
                false
            }
            Err(error) => return Err(error),
        };
        let fate = if dropped { &mut outcome.dropped } else { &mut outcome.in_use };
        fate.insert(slot.member);
    }
    Ok(outcome)
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
