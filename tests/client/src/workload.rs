//! What a writer writes, and the statements that write it.
//!
//! Every attempt has an identity, writer and number, that is written with it: so one whose outcome is unknown can be
//! told later as there or not, and one that is there twice shows, for which there is no unique constraint on purpose.
//! Every acknowledgement names the server and the timeline that gave it. What an attempt writes is a function of its
//! number, so that what is there can be compared with what was asked for.

mod prepare;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

pub(crate) use prepare::prepare;

use crate::attempt::{Answer, Identity, Workload};
use crate::outcome::Failure;
use crate::session::Session;

/// What each account holds at first.
pub(crate) const INITIAL: i64 = 1000;
/// A row of [`Workload::Deletes`] is deleted by the attempt that has this much higher a number.
pub(crate) const KEPT_FOR: i64 = 10;

/// Address, port and timeline of the server, the last as it writes it: the first eight digits of its WAL file's name.
const WHO: &str = "pg_catalog.host(pg_catalog.inet_server_addr()), pg_catalog.inet_server_port()";
const TIMELINE: &str = "('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), \
                        1, 8))::pg_catalog.bit(32)::int4";

/// How transfers keep out of each other's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Isolation {
    /// Row locks, taken in one order.
    Locks,
    /// SERIALIZABLE, without locks of their own.
    Serializable,
}

/// What this server's acknowledgements can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// Whether it tells its timeline.
    pub(crate) timeline: bool,
}

/// One writer's statements.
pub(crate) struct Plan {
    identity: Identity,
    begin: String,
    lock: Option<String>,
    update: String,
    insert: String,
}

impl Plan {
    /// The statements for this identity.
    pub(crate) fn new(identity: Identity, isolation: Isolation, dialect: Dialect) -> Self {
        let table = &identity.table;
        let timeline = if dialect.timeline { TIMELINE } else { "NULL::int4" };
        let answer = format!("{WHO}, {timeline}");
        let insert = match identity.workload {
            Workload::Rows => format!("INSERT INTO {table} (writer, n) VALUES ($1, $2) RETURNING {answer}"),
            Workload::Transfers => format!(
                "INSERT INTO {table}_transfers (writer, n, source, target, amount) VALUES ($1, $2, $3, $4, $5) \
                 RETURNING {answer}"
            ),
            Workload::Appends => format!(
                "WITH list AS (UPDATE {table}_lists SET length = length + 1 WHERE id = $3 RETURNING length) \
                 INSERT INTO {table}_appends (writer, n, list, position) SELECT $1, $2, $3, length FROM list \
                 RETURNING {answer}, position"
            ),
            Workload::Deletes => format!(
                "WITH old AS (DELETE FROM {table}_deletes WHERE writer = $1 AND n = $2 - {KEPT_FOR}) \
                 INSERT INTO {table}_deletes (writer, n) VALUES ($1, $2) RETURNING {answer}"
            ),
        };
        let level = match isolation {
            Isolation::Locks => "READ COMMITTED",
            Isolation::Serializable => "SERIALIZABLE",
        };
        Self {
            // A client that was cut off within its transaction must not keep its locks for as long as TCP takes.
            begin: format!(
                "BEGIN ISOLATION LEVEL {level}; SET LOCAL idle_in_transaction_session_timeout = '5s'"
            ),
            lock: (isolation == Isolation::Locks).then(|| {
                format!("SELECT id FROM {table}_accounts WHERE id IN ($1, $2) ORDER BY id FOR UPDATE")
            }),
            update: format!(
                "UPDATE {table}_accounts SET balance = balance + CASE id WHEN $1 THEN -$3 ELSE $3 END \
                 WHERE id IN ($1, $2)"
            ),
            insert,
            identity,
        }
    }

    /// Makes one attempt.
    pub(crate) async fn attempt(&self, session: &Session, n: i64) -> Result<Answer, Failure> {
        let writer = &self.identity.writer;
        match self.identity.workload {
            Workload::Rows | Workload::Deletes => {
                answer(&session.run(&self.insert, &[(writer, Type::TEXT), (&n, Type::INT8)]).await?)
            }
            Workload::Appends => {
                let list = list(n, self.identity.size);
                let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
                    [(writer, Type::TEXT), (&n, Type::INT8), (&list, Type::INT4)];
                answer(&session.run(&self.insert, &parameters).await?)
            }
            Workload::Transfers => self.transfer(session, n).await,
        }
    }

    async fn transfer(&self, session: &Session, n: i64) -> Result<Answer, Failure> {
        let before = |failure| Failure::NotCommitted(Box::new(failure));
        let answer = self.within(session, n).await.map_err(before)?;
        session.batch("COMMIT").await?;
        Ok(answer)
    }

    async fn within(&self, session: &Session, n: i64) -> Result<Answer, Failure> {
        let Transfer { source, target, amount } = transfer(n, self.identity.size);
        session.batch(&self.begin).await?;
        let two: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&source, Type::INT4), (&target, Type::INT4), (&amount, Type::INT8)];
        if let Some(lock) = &self.lock {
            session.run(lock, two.get(..2).unwrap_or_default()).await?;
        }
        session.run(&self.update, &two).await?;
        let row: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 5] = [
            (&self.identity.writer, Type::TEXT),
            (&n, Type::INT8),
            (&source, Type::INT4),
            (&target, Type::INT4),
            (&amount, Type::INT8),
        ];
        answer(&session.run(&self.insert, &row).await?)
    }
}

/// One transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// From this account.
    pub(crate) source: i32,
    /// To this other one.
    pub(crate) target: i32,
    /// This much.
    pub(crate) amount: i64,
}

/// The transfer of this number among so many accounts, at least two.
pub(crate) fn transfer(n: i64, accounts: i32) -> Transfer {
    let accounts = i64::from(accounts.max(2));
    let source = n.rem_euclid(accounts);
    let step = 1 + n.div_euclid(accounts).rem_euclid(accounts - 1);
    let small = |number: i64| i32::try_from(number).unwrap_or(0);
    Transfer {
        source: small(source),
        target: small((source + step) % accounts),
        amount: 1 + n.rem_euclid(97),
    }
}

/// The list that this number is appended to.
pub(crate) fn list(n: i64, lists: i32) -> i32 {
    i32::try_from(n.rem_euclid(i64::from(lists.max(1)))).unwrap_or(0)
}

/// An acknowledgement without a row wrote nothing, which no plan of ours may do.
fn answer(rows: &[Row]) -> Result<Answer, Failure> {
    let Some(row) = rows.first() else {
        return Err(Failure::NotSent(anyhow::anyhow!("the statement wrote no row")));
    };
    Ok(Answer {
        server: row.try_get::<_, Option<&str>>(0).ok().flatten().and_then(|text| text.parse().ok()),
        port: row.try_get::<_, Option<i32>>(1).ok().flatten().and_then(|port| u16::try_from(port).ok()),
        timeline: row.try_get::<_, Option<i32>>(2).ok().flatten().map(i32::cast_unsigned),
        in_recovery: None,
        position: row.try_get::<_, Option<i64>>(3).ok().flatten(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transfer_has_two_accounts_and_an_amount() {
        for accounts in [2, 3, 16] {
            for n in 1..500 {
                let made = transfer(n, accounts);
                assert!(made.source != made.target && made.amount > 0, "{made:?}");
                assert!((0..accounts).contains(&made.source) && (0..accounts).contains(&made.target));
            }
        }
        assert_eq!((list(1, 8), list(16, 8)), (1, 0));
    }
}
