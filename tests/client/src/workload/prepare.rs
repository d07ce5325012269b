//! Makes the tables where they are missing, and asks what the server can tell.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::error::Severity;

use super::{Dialect, INITIAL, TIMELINE};
use crate::attempt::Workload;
use crate::outcome::Failure;
use crate::session::{Door, Session};

/// Makes what these workloads need, within the bound; each with how many accounts or lists.
pub(crate) async fn prepare(
    door: &Door,
    table: &str,
    workloads: &[(Workload, i32)],
    bound: Duration,
) -> anyhow::Result<Dialect> {
    let deadline = Instant::now() + bound;
    loop {
        let error = match once(door, table, workloads).await {
            Ok(dialect) => return Ok(dialect),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(error.context(format!("make the table {table}")));
        }
        eprintln!("make the table {table}: {error:#}; trying again");
        sleep(Duration::from_millis(200)).await;
    }
}

async fn once(door: &Door, table: &str, workloads: &[(Workload, i32)]) -> anyhow::Result<Dialect> {
    let session = door.open().await?;
    for (workload, size) in workloads {
        for statement in statements(*workload, table, *size) {
            match session.run(&statement, &[]).await {
                // "relation already exists, skipping" is a notice; another client may have been quicker.
                Ok(_) => {}
                Err(Failure::Answered(error)) if error.code().is_some_and(|code| code.code() == "23505") => {}
                Err(failure) => anyhow::bail!("{}", failure.text()),
            }
        }
    }
    dialect(&session).await
}

/// Some servers of other makes refuse to tell their timeline, or have none.
async fn dialect(session: &Session) -> anyhow::Result<Dialect> {
    match session.run(&format!("SELECT {TIMELINE}"), &[]).await {
        Ok(_) => Ok(Dialect { timeline: true }),
        Err(Failure::Answered(error))
            if error.as_db_error().and_then(tokio_postgres::error::DbError::parsed_severity)
                == Some(Severity::Error) =>
        {
            eprintln!("this server does not tell its timeline, so nobody can judge by it: {error}");
            Ok(Dialect { timeline: false })
        }
        Err(failure) => anyhow::bail!("{}", failure.text()),
    }
}

fn statements(workload: Workload, table: &str, size: i32) -> Vec<String> {
    const ROW: &str = "writer text NOT NULL, n bigint NOT NULL";
    const AT: &str = "at timestamptz NOT NULL DEFAULT clock_timestamp()";
    let last = size - 1;
    match workload {
        Workload::Rows => vec![format!("CREATE TABLE IF NOT EXISTS {table} ({ROW}, {AT})")],
        Workload::Transfers => vec![
            format!(
                "CREATE TABLE IF NOT EXISTS {table}_accounts (id int PRIMARY KEY, balance bigint NOT NULL)"
            ),
            format!(
                "INSERT INTO {table}_accounts SELECT id, {INITIAL} FROM generate_series(0, {last}) AS id \
                 ON CONFLICT DO NOTHING"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {table}_transfers \
                 ({ROW}, source int NOT NULL, target int NOT NULL, amount bigint NOT NULL, {AT})"
            ),
        ],
        Workload::Appends => vec![
            format!("CREATE TABLE IF NOT EXISTS {table}_lists (id int PRIMARY KEY, length bigint NOT NULL)"),
            format!(
                "INSERT INTO {table}_lists SELECT id, 0 FROM generate_series(0, {last}) AS id ON CONFLICT DO NOTHING"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {table}_appends \
                 ({ROW}, list int NOT NULL, position bigint NOT NULL, {AT})"
            ),
        ],
        Workload::Deletes => vec![
            format!("CREATE TABLE IF NOT EXISTS {table}_deletes ({ROW}, {AT})"),
            format!("CREATE INDEX IF NOT EXISTS {table}_deletes_row ON {table}_deletes (writer, n)"),
        ],
    }
}
