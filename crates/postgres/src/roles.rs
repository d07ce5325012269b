//! Roles, passwords and the first database, made over the Unix socket, each as often as one likes.
//!
//! Decides what exists in a new cluster. Must never send a clear password, nor change one that is right already, nor
//! give a member's role anything but replication and what a rewind reads. Written with `synchronous_commit = local`:
//! call it before the gate opens and let the quorum flush what follows (I13). Proved by `tests/servers/roles.rs`.

use std::collections::BTreeSet;

use ha::Incarnation;
use tokio_postgres::error::SqlState;

use crate::identifier::{IdentifierError, quote_identifier, quote_literal};
use crate::replication::slots::Dropped;
use crate::scram::Verifier;
use crate::session::{Session, SqlError, column};
use crate::settings::{MEMBER_GROUP, SUPERUSER};

/// Why a role or database could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RolesError {
    /// A name that PostgreSQL cannot have.
    #[error("not a usable name")]
    Name(#[from] IdentifierError),
    /// The name belongs to the operator.
    #[error("the name {0:?} is the operator's own")]
    Reserved(String),
    /// A statement failed.
    #[error("cannot make roles or databases")]
    Sql(#[from] SqlError),
}

/// The application's role and database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// The role that owns the database.
    pub owner: String,
    /// The database.
    pub database: String,
}

/// The functions that a rewind calls (P22, documentation of `pg_rewind`).
const REWIND_FUNCTIONS: &[&str] = &[
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// Makes the group of the members' roles and gives it what a rewind needs. Needs a session to the superuser's database.
pub async fn ensure_member_group(session: &Session) -> Result<(), RolesError> {
    let group = quote_identifier(MEMBER_GROUP)?;
    if !exists(session, MEMBER_GROUP).await? {
        session.batch("make the members' group", &format!("CREATE ROLE {group} NOLOGIN")).await?;
    }
    for function in REWIND_FUNCTIONS {
        const GRANTED: &str = "SELECT has_function_privilege($1::text::name, $2::text, 'EXECUTE')";
        let granted = session
            .value::<bool>("look at a right", GRANTED, &[&MEMBER_GROUP, &format!("pg_catalog.{function}")])
            .await?;
        if !granted {
            let grant = format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {group}");
            session.batch("grant what a rewind needs", &grant).await?;
        }
    }
    Ok(())
}

/// Makes the replication roles of these members. Those made. The group must exist.
pub async fn ensure_member_roles(
    session: &Session,
    members: &BTreeSet<Incarnation>,
) -> Result<BTreeSet<Incarnation>, RolesError> {
    let mut made = BTreeSet::new();
    for member in members {
        let name = ha::types::application_name(*member);
        if exists(session, &name).await? {
            continue;
        }
        let create = format!(
            "CREATE ROLE {} LOGIN REPLICATION NOCREATEDB NOCREATEROLE PASSWORD NULL IN ROLE {}",
            quote_identifier(&name)?,
            quote_identifier(MEMBER_GROUP)?
        );
        session.batch("make a member's role", &create).await?;
        made.insert(*member);
    }
    Ok(made)
}

/// Members that have a role.
pub async fn member_roles(session: &Session) -> Result<BTreeSet<Incarnation>, RolesError> {
    const WHAT: &str = "list the members' roles";
    let rows = session
        .rows(WHAT, "SELECT rolname::text FROM pg_roles WHERE rolreplication AND rolcanlogin", &[])
        .await?;
    let mut members = BTreeSet::new();
    for row in &rows {
        let name: String = column(WHAT, row, 0)?;
        members.extend(crate::replication::standbys::member_of(&name));
    }
    Ok(members)
}

/// Drops the role of a member that is gone for good.
pub async fn drop_member_role(session: &Session, member: Incarnation) -> Result<(), RolesError> {
    let name = quote_identifier(&ha::types::application_name(member))?;
    session.batch("drop a member's role", &format!("DROP ROLE IF EXISTS {name}")).await?;
    Ok(())
}

/// Drops the roles `m_…` of everybody but these members; a role that streams now, or that somebody made own something,
/// stays and is named.
///
/// Call it on the master with the same members as [`crate::replication::slots::drop_slots_except`]: without its role a
/// member can neither stream nor clone.
pub async fn drop_roles_except(
    session: &Session,
    members: &BTreeSet<Incarnation>,
) -> Result<Dropped, RolesError> {
    const STREAMS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1::text::name)";
    let mut outcome = Dropped::default();
    for member in member_roles(session).await?.difference(members) {
        let name = ha::types::application_name(*member);
        let used = session.value::<bool>("look for a member's sessions", STREAMS, &[&name]).await?;
        let dropped = !used
            && match drop_member_role(session, *member).await {
                Ok(()) => true,
                Err(RolesError::Sql(error))
                    if error.code() == Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) =>
                {
                    false
                }
                Err(error) => return Err(error),
            };
        let fate = if dropped { &mut outcome.dropped } else { &mut outcome.in_use };
        fate.insert(*member);
    }
    Ok(outcome)
}

/// Sets the superuser's password, unless it is that already. True when it changed.
pub async fn ensure_superuser_password(session: &Session, password: &str) -> Result<bool, RolesError> {
    ensure_password(session, SUPERUSER, password).await
}

/// Makes the application's role, password and database, as far as they are missing. True when anything changed.
pub async fn ensure_application(
    session: &Session,
    application: &Application,
    password: &str,
) -> Result<bool, RolesError> {
    for name in [&application.owner, &application.database] {
        reserved(name)?;
    }
    let owner = quote_identifier(&application.owner)?;
    let database = quote_identifier(&application.database)?;
    let mut changed = false;
    if !exists(session, &application.owner).await? {
        let make = format!("CREATE ROLE {owner} LOGIN NOSUPERUSER NOREPLICATION NOCREATEDB NOCREATEROLE");
        session.batch("make the application's role", &make).await?;
        changed = true;
    }
    changed |= ensure_password(session, &application.owner, password).await?;
    let there = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1::text::name)";
    if !session.value::<bool>("look for the database", there, &[&application.database]).await? {
        let make = format!("CREATE DATABASE {database} OWNER {owner}");
        session.batch("make the application's database", &make).await?;
        changed = true;
    }
    Ok(changed)
}

fn reserved(name: &str) -> Result<(), RolesError> {
    let ours = name == SUPERUSER
        || name == MEMBER_GROUP
        || name.starts_with("pg_")
        || ["template0", "template1"].contains(&name)
        || crate::replication::standbys::member_of(name).is_some();
    if ours { Err(RolesError::Reserved(name.to_owned())) } else { Ok(()) }
}

async fn ensure_password(session: &Session, role: &str, password: &str) -> Result<bool, RolesError> {
    const WHAT: &str = "look at a password";
    let stored = "SELECT rolpassword FROM pg_authid WHERE rolname = $1::text::name";
    let row = session.row(WHAT, stored, &[&role]).await?;
    let stored: Option<String> = column(WHAT, &row, 0)?;
    if stored.as_deref().and_then(Verifier::parse).is_some_and(|v| v.accepts(password)) {
        return Ok(false);
    }
    let verifier = Verifier::new(password);
    let role = quote_identifier(role)?;
    let set = format!("ALTER ROLE {role} PASSWORD {}", quote_literal(verifier.as_str())?);
    session.batch("set a password", &set).await?;
    Ok(true)
}

async fn exists(session: &Session, role: &str) -> Result<bool, SqlError> {
    let there = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1::text::name)";
    session.value("look for a role", there, &[&role]).await
}
