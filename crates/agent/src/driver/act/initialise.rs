//! The first data directory of a cluster that has none, and its removal when another member was faster.
//!
//! Must never touch a directory that was part of a recorded cluster (S6): the promise says so before and after.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use ha::{Bootstrap, Phase};
use postgres::command::controldata;
use postgres::command::initdb::Initdb;
use postgres::durable;

use crate::driver::context::Context;

/// initdb takes seconds; a slow disk may need minutes.
const INITDB: Duration = Duration::from_secs(600);
/// Reading the control file.
const CONTROL: Duration = Duration::from_secs(10);

/// Runs initdb on an empty volume. The promise says `Unrecorded` before the first file is there.
pub(super) async fn initialise(context: &Context) -> anyhow::Result<()> {
    let record = context.record.refresh().await.context("the record cannot be read afresh")?;
    ensure!(record.phase == Phase::Uninitialised, "the cluster has been initialised already");
    let promise = context.promise.get();
    ensure!(promise.bootstrap != Bootstrap::Member, "this volume belongs to a recorded cluster");
    if context.layout.has_data() {
        ensure!(promise.bootstrap == Bootstrap::Unrecorded, "there is data of unknown origin");
    }
    context.promise.update(|promise| promise.bootstrap = Bootstrap::Unrecorded).await?;
    let binaries = context.binaries()?;
    if !context.layout.has_data() {
        let wanted = &context.settings()?.init;
        let initdb = Initdb {
            encoding: wanted.encoding.clone(),
            locale: wanted.locale.clone(),
            data_checksums: wanted.data_checksums,
            wal_segment_mib: None,
        };
        initdb.run(&binaries, &context.layout, INITDB).await?;
    }
    let control = controldata::read(&binaries, &context.layout.data(), CONTROL).await?;
    let identifier = control.system_identifier;
    context.promise.update(move |promise| promise.system_identifier = Some(identifier)).await?;
    Ok(())
}

/// Removes a directory that was never recorded.
pub(super) async fn wipe_unrecorded(context: &Context) -> anyhow::Result<()> {
    ensure!(context.postmaster.now().is_gone(), "PostgreSQL still runs");
    let record = context.record.refresh().await.context("the record cannot be read afresh")?;
    let promise = context.promise.get();
    ensure!(promise.bootstrap == Bootstrap::Unrecorded, "this volume may hold a recorded copy");
    ensure!(record.phase == Phase::Running, "nobody else has initialised the cluster");
    ensure!(!record.names(&context.member()), "the record names this member");
    ensure!(
        record.system_identifier.is_none() || record.system_identifier != promise.system_identifier,
        "the record holds this very database",
    );
    let data = context.layout.data();
    tokio::task::spawn_blocking(move || durable::remove_tree(&data)).await??;
    context
        .promise
        .update(|promise| {
            promise.bootstrap = Bootstrap::Empty;
            promise.system_identifier = None;
        })
        .await?;
    Ok(())
}
