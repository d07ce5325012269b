//! Changing parameters of a running cluster: what needs a restart, in which order, and whether PostgreSQL takes it.
//!
//! Decides the order that P19 asks for. Must never call a change applied that waits for a restart, nor let a rejected
//! file reach a server. Proved by `tests` and `tests/servers/settings.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::binaries::Binaries;
use crate::durable::{self, DurableError};
use crate::layout::Layout;
use crate::process::{Program, ProgramError};
use crate::session::{Session, SqlError, column};
use crate::settings::{STANDBY_FLOORS, SettingError, UserParameters};

/// Parameters whose new value waits for a restart. Asked on a session opened after the reload.
pub async fn pending_restart(session: &Session) -> Result<BTreeSet<String>, SqlError> {
    const WHAT: &str = "list what waits for a restart";
    let query = "SELECT name FROM pg_settings WHERE pending_restart ORDER BY name";
    session.rows(WHAT, query, &[]).await?.iter().map(|row| column(WHAT, row, 0)).collect()
}

/// What the server uses for these parameters now; those that it does not know are left out.
pub async fn in_use(session: &Session, names: &[&str]) -> Result<BTreeMap<String, String>, SqlError> {
    const WHAT: &str = "read parameters";
    let query = "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY ($1::text[])";
    let mut values = BTreeMap::new();
    for row in session.rows(WHAT, query, &[&names]).await? {
        values.insert(column(WHAT, &row, 0)?, column(WHAT, &row, 1)?);
    }
    Ok(values)
}

/// P15: a role or a database whose commits wait for less than the cluster promises.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lowered {
    /// The role; none when it holds for every role.
    pub role: Option<String>,
    /// The database; none when it holds in every database.
    pub database: Option<String>,
    /// The value of `synchronous_commit`: `off`, `local`, `remote_write` or one of their other spellings.
    pub value: String,
}

impl std::fmt::Display for Lowered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.role, &self.database) {
            (Some(role), Some(database)) => write!(f, "role {role:?} in database {database:?}")?,
            (Some(role), None) => write!(f, "role {role:?}")?,
            (None, Some(database)) => write!(f, "database {database:?}")?,
            (None, None) => f.write_str("every role in every database")?,
        }
        write!(f, ": synchronous_commit = {}", self.value)
    }
}

/// P15: roles and databases for which commits wait for less than the cluster promises, as `pg_db_role_setting` has
/// them. A session may lower it for itself at any moment, and a function for its own run: those nobody can list, so
/// this is a report and no promise.
pub async fn lowered_synchronous_commit(session: &Session) -> Result<Vec<Lowered>, SqlError> {
    const WHAT: &str = "look for lowered durability";
    const QUERY: &str = "\
SELECT r.rolname::text, d.datname::text, substr(c, strpos(c, '=') + 1)
  FROM pg_db_role_setting AS s
  LEFT JOIN pg_roles AS r ON r.oid = s.setrole
  LEFT JOIN pg_database AS d ON d.oid = s.setdatabase,
       unnest(s.setconfig) AS c
 WHERE c ~* '^synchronous_commit=' AND c !~* '=(on|remote_apply|true|yes|1)$'
 ORDER BY 1, 2";
    let mut lowered = Vec::new();
    for row in &session.rows(WHAT, QUERY, &[]).await? {
        lowered.push(Lowered {
            role: column(WHAT, row, 0)?,
            database: column(WHAT, row, 1)?,
            value: column(WHAT, row, 2)?,
        });
    }
    Ok(lowered)
}

/// In which order members restart for a change of the P19 parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// None of them changes.
    Any,
    /// Something grows: a standby must have the higher value before it meets it in the WAL.
    StandbysFirst,
    /// Something shrinks: the master must have written the lower value before a standby may have it.
    MasterFirst,
    /// Some grow and some shrink: two rounds, the growing ones first.
    TwoRounds,
}

/// P19: the order for a change from one set of values to another. Absent means PostgreSQL's default, which is the
/// smallest value anybody sensibly sets, so an absent one counts as smaller.
pub fn order(from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) -> Order {
    let number = |map: &BTreeMap<String, String>, name: &str| {
        map.get(name).and_then(|v| v.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let (mut grows, mut shrinks) = (false, false);
    for name in STANDBY_FLOORS {
        grows |= number(to, name) > number(from, name);
        shrinks |= number(to, name) < number(from, name);
    }
    match (grows, shrinks) {
        (false, false) => Order::Any,
        (true, false) => Order::StandbysFirst,
        (false, true) => Order::MasterFirst,
        (true, true) => Order::TwoRounds,
    }
}

/// Why a candidate could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    /// It cannot be rendered.
    #[error("cannot render the candidate")]
    Render(#[from] SettingError),
    /// It cannot be written.
    #[error("cannot write the candidate")]
    Write(#[from] DurableError),
    /// PostgreSQL could not be asked.
    #[error("cannot ask PostgreSQL about the candidate")]
    Run(#[source] ProgramError),
}

/// Asks PostgreSQL itself whether it would start with these parameters, without touching the running server. Empty
/// when it would; else its own words, one per problem.
///
/// Names of extensions' parameters are taken as they are: their library is not loaded for this.
pub async fn validate(
    binaries: &Binaries,
    layout: &Layout,
    candidate: &UserParameters,
    bound: Duration,
) -> Result<Vec<String>, ValidateError> {
    let text = candidate.render()?;
    let path = layout.state().join("candidate.conf");
    let file = path.clone();
    durable::off_thread(&path, move || durable::write(&file, text.as_bytes(), 0o600)).await?;
    let mut problems = Vec::new();
    let finished = Program::new(binaries.program("postgres"))
        .option("-D", layout.data())
        .option("-C", "max_connections")
        .arg(format!("--config-file={}", path.display()))
        .run_any(bound, |line| {
            let line = line.rsplit_once('|').map_or(line, |(_, text)| text);
            // The last word of the program says only that there were errors.
            if !line.starts_with("FATAL:  configuration file") {
                problems.push(line.to_owned());
            }
        })
        .await
        .map_err(ValidateError::Run)?;
    if finished.status.success() {
        return Ok(Vec::new());
    }
    if problems.is_empty() {
        problems.push(finished.said);
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p19_growing_starts_at_the_standbys_and_shrinking_at_the_master() {
        let of = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let small = of(&[("max_connections", "100"), ("work_mem", "1MB")]);
        let large = of(&[("max_connections", "200"), ("work_mem", "2MB")]);
        assert_eq!(order(&small, &large), Order::StandbysFirst);
        assert_eq!(order(&large, &small), Order::MasterFirst);
        assert_eq!(order(&small, &of(&[("max_connections", "100"), ("work_mem", "9MB")])), Order::Any);
        let mixed = of(&[("max_connections", "50"), ("max_wal_senders", "30")]);
        assert_eq!(order(&small, &mixed), Order::TwoRounds);
    }
}
