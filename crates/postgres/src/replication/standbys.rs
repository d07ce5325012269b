//! Who streams from this server, and how far each has flushed.
//!
//! Decides which walsender is a member's: application name *and* role must carry the same incarnation (I10). Must never
//! read a NULL position as zero or as caught up (P14). Proved by `tests` and `tests/servers/names.rs`.

use std::collections::BTreeSet;

use ha::{Incarnation, Lsn};

use crate::session::{Session, SqlError, column, lsn_column};

/// One row of `pg_stat_replication`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walsender {
    /// Its process.
    pub pid: i32,
    /// The role that it logged in as; unknown while it is not shown.
    pub role: Option<String>,
    /// What it calls itself.
    pub application_name: String,
    /// Its address; none for the Unix socket.
    pub address: Option<String>,
    /// `startup`, `catchup`, `streaming`, `backup`, `stopping`.
    pub state: String,
    /// Sent up to here; unknown when NULL.
    pub sent: Option<Lsn>,
    /// Flushed by the standby up to here; unknown when NULL (P14).
    pub flushed: Option<Lsn>,
    /// Replayed up to here; unknown when NULL.
    pub replayed: Option<Lsn>,
}

impl Walsender {
    /// The member that this is, when role and application name agree (I10).
    pub fn member(&self) -> Option<Incarnation> {
        let member = member_of(&self.application_name)?;
        (self.role.as_deref() == Some(self.application_name.as_str())).then_some(member)
    }

    /// It streams, rather than catching up or copying.
    pub fn is_streaming(&self) -> bool {
        self.state == "streaming"
    }
}

/// The incarnation in a member's application name, slot or role; none for any other name.
pub fn member_of(name: &str) -> Option<Incarnation> {
    let hex = name.strip_prefix("m_")?;
    let canonical = hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if canonical { hex.parse().ok() } else { None }
}

/// Every walsender, the agent's own short-lived ones left out.
pub async fn walsenders(session: &Session) -> Result<Vec<Walsender>, SqlError> {
    const WHAT: &str = "list the walsenders";
    const QUERY: &str = "\
SELECT pid, usename::text, application_name, host(client_addr), state,
       sent_lsn::text, flush_lsn::text, replay_lsn::text
  FROM pg_stat_replication WHERE application_name <> 'matriarch' ORDER BY pid";
    let mut found = Vec::new();
    for row in session.rows(WHAT, QUERY, &[]).await? {
        found.push(Walsender {
            pid: column(WHAT, &row, 0)?,
            role: column(WHAT, &row, 1)?,
            application_name: column::<Option<String>>(WHAT, &row, 2)?.unwrap_or_default(),
            address: column(WHAT, &row, 3)?,
            state: column::<Option<String>>(WHAT, &row, 4)?.unwrap_or_default(),
            sent: lsn_column(WHAT, &row, 5)?,
            flushed: lsn_column(WHAT, &row, 6)?,
            replayed: lsn_column(WHAT, &row, 7)?,
        });
    }
    Ok(found)
}

/// Members that are known to have flushed `position`, each counted once however many connections it has.
pub fn flushed_by(walsenders: &[Walsender], position: Lsn) -> BTreeSet<Incarnation> {
    let reached = |w: &&Walsender| w.is_streaming() && w.flushed.is_some_and(|f| f >= position);
    walsenders.iter().filter(reached).filter_map(Walsender::member).collect()
}

/// Ends the walsenders of these members, or of all, once; they reconnect and read the present names at their start
/// (§6). How many there were.
pub async fn end_walsenders(
    session: &Session,
    of: Option<&BTreeSet<Incarnation>>,
) -> Result<usize, SqlError> {
    let mut ended = 0;
    for walsender in walsenders(session).await? {
        let Some(member) = member_of(&walsender.application_name) else { continue };
        if of.is_none_or(|of| of.contains(&member)) {
            let end = "SELECT pg_terminate_backend($1)";
            session.value::<bool>("end a walsender", end, &[&walsender.pid]).await?;
            ended += 1;
        }
    }
    Ok(ended)
}

/// Walsenders that carry a member's name without its role: somebody counts as that member who is not (I10).
pub fn impostors(walsenders: &[Walsender]) -> Vec<&Walsender> {
    walsenders.iter().filter(|w| member_of(&w.application_name).is_some() && w.member().is_none()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walsender(role: Option<&str>, application_name: &str, flushed: Option<u64>) -> Walsender {
        Walsender {
            pid: 1,
            role: role.map(str::to_owned),
            application_name: application_name.to_owned(),
            address: None,
            state: "streaming".to_owned(),
            sent: None,
            flushed: flushed.map(Lsn),
            replayed: None,
        }
    }

    const M: &str = "m_00000000000000ab";

    #[test]
    fn i10_a_member_is_role_and_name_together_and_counts_once() {
        let rows = [
            walsender(Some(M), M, Some(10)),
            walsender(Some(M), M, Some(12)),
            walsender(Some("someone"), "m_00000000000000ac", Some(99)),
            walsender(None, "m_00000000000000ad", Some(99)),
            walsender(Some(M), "c_00000000000000ab", Some(99)),
        ];
        assert_eq!(flushed_by(&rows, Lsn(10)).into_iter().collect::<Vec<_>>(), [Incarnation(0xAB)]);
        assert_eq!(impostors(&rows).len(), 2);
        assert_eq!(member_of("M_00000000000000AB"), None);
        assert_eq!(member_of("m_ab"), None);
    }

    #[test]
    fn p14_a_null_position_has_flushed_nothing() {
        assert!(flushed_by(&[walsender(Some(M), M, None)], Lsn(0)).is_empty());
    }
}
