//! What is there: the rows, transfers, accounts, lists and appends, each kind in one snapshot.

use std::collections::BTreeMap;

use anyhow::Context;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::attempt::{Identity, Workload};
use crate::session::Session;
use crate::verdict::appends::Entry;
use crate::verdict::transfers::{Found, Ledger};
use crate::workload::{INITIAL, Transfer};

/// Numbers of a writer's rows, each with how often it is there.
pub(crate) async fn counted(session: &Session, identity: &Identity) -> anyhow::Result<BTreeMap<i64, i64>> {
    let suffix = if identity.workload == Workload::Deletes { "_deletes" } else { "" };
    let sql = format!("SELECT n, count(*) FROM {}{suffix} WHERE writer = $1 GROUP BY n", identity.table);
    let rows = query(session, &sql, &[(&identity.writer, Type::TEXT)]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// A writer's transfers.
pub(crate) async fn transfers(
    session: &Session,
    identity: &Identity,
) -> anyhow::Result<BTreeMap<i64, Found>> {
    let sql = format!(
        "SELECT n, min(source), min(target), min(amount), count(*) FROM {}_transfers WHERE writer = $1 GROUP BY n",
        identity.table
    );
    let rows = query(session, &sql, &[(&identity.writer, Type::TEXT)]).await?;
    let found = |row: &Row| -> Result<_, tokio_postgres::Error> {
        let what = Transfer { source: row.try_get(1)?, target: row.try_get(2)?, amount: row.try_get(3)? };
        Ok((row.try_get(0)?, Found { what, count: row.try_get(4)? }))
    };
    rows.iter().map(|row| Ok(found(row)?)).collect()
}

/// All accounts of this table.
pub(crate) async fn ledger(session: &Session, table: &str) -> anyhow::Result<Ledger> {
    let sql = format!(
        "SELECT count(*), coalesce(sum(balance), 0)::bigint, \
                count(*) FILTER (WHERE balance <> $1 + coalesce(moved.amount, 0)) \
         FROM {table}_accounts LEFT JOIN ( \
           SELECT id, sum(amount) AS amount FROM ( \
             SELECT source AS id, -amount AS amount FROM {table}_transfers \
             UNION ALL SELECT target, amount FROM {table}_transfers) AS each GROUP BY id \
         ) AS moved USING (id)"
    );
    let rows = query(session, &sql, &[(&INITIAL, Type::INT8)]).await?;
    let row = rows.first().context("no row")?;
    Ok(Ledger { accounts: row.try_get(0)?, sum: row.try_get(1)?, off: row.try_get(2)? })
}

/// All lists of this table (identity, length), and all appends, by the writers' places among these names.
pub(crate) async fn lists(
    session: &Session,
    table: &str,
    writers: &BTreeMap<&str, usize>,
) -> anyhow::Result<(BTreeMap<i32, i64>, Vec<Entry>)> {
    // One statement is one snapshot: a list without appends is a row of its own.
    let sql = format!(
        "SELECT l.id, l.length, a.position, a.writer, a.n \
         FROM {table}_lists AS l FULL JOIN {table}_appends AS a ON a.list = l.id"
    );
    let mut lengths = BTreeMap::new();
    let mut entries = Vec::new();
    for row in query(session, &sql, &[]).await? {
        let list: Option<i32> = row.try_get(0)?;
        if let (Some(list), Some(length)) = (list, row.try_get::<_, Option<i64>>(1)?) {
            lengths.insert(list, length);
        }
        let (Some(position), Some(writer), Some(n)) = (
            row.try_get::<_, Option<i64>>(2)?,
            row.try_get::<_, Option<&str>>(3)?,
            row.try_get::<_, Option<i64>>(4)?,
        ) else {
            continue;
        };
        let writer = writers.get(writer).copied();
        entries.push(Entry { list: list.unwrap_or(-1), position, writer, n });
    }
    Ok((lengths, entries))
}

async fn query(
    session: &Session,
    sql: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> anyhow::Result<Vec<Row>> {
    let answer = session.run(sql, parameters).await;
    answer.map_err(|failure| anyhow::anyhow!("{}", failure.text())).context("read what is there")
}
