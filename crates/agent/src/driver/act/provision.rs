//! Roles, passwords and the first database.
//!
//! Passwords come from Secrets and reach PostgreSQL only as SCRAM verifiers. What is written while the gate is closed
//! counts as part of the first record: the quorum flushes it before anybody sees it (I13).

use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use ha::Gate;
use postgres::Session;
use postgres::promote::flush_position;
use postgres::roles::{Application, ensure_application, ensure_member_group, ensure_superuser_password};

use crate::driver::context::Context;

/// CREATE DATABASE copies a template.
const BOUND: Duration = Duration::from_secs(60);

/// Whether role and database are there: a promoted standby has what its former master was given, and only passwords
/// may have changed since, which is seen to afterwards.
pub(super) async fn is_provisioned(context: &Context, session: &Session) -> anyhow::Result<bool> {
    const THERE: &str = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1::text::name)
                        AND EXISTS (SELECT FROM pg_database WHERE datname = $2::text::name)";
    let init = &context.settings()?.init;
    Ok(session.value("look for the application's database", THERE, &[&init.owner, &init.database]).await?)
}

/// Makes what is missing and corrects passwords that differ.
pub(super) async fn provision(context: &Context) -> anyhow::Result<()> {
    let known = context.files.get();
    let superuser = known.superuser.context("the superuser's Secret was not read yet")?;
    let app = known.app.context("the application's Secret was not read yet")?;
    let init = &context.settings()?.init;
    let session = Session::open(&context.layout, BOUND).await?;
    ensure_member_group(&session).await?;
    ensure_superuser_password(&session, &superuser.password).await?;
    let application = Application { owner: init.owner.clone(), database: init.database.clone() };
    ensure_application(&session, &application, &app.password).await?;
    *context.passwords.lock().unwrap_or_else(PoisonError::into_inner) = Some((superuser, app));
    let flushed = flush_position(&session).await?;
    context.tracked.set(|facts| {
        facts.provisioned = true;
        if facts.gate == Gate::Closed {
            facts.first_record = facts.first_record.map(|first| first.max(flushed));
        }
    });
    Ok(())
}
