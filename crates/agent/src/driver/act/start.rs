//! Starting Postgres: as a standby always, as a master only under a fresh authority.
//!
//! Must never start a directory that a rewind left half done, never leave planted history behind for a standby (P11),
//! and never start without `standby.signal` unless a fresh read of the record names this very life and the control file
//! shows the recorded timeline (§4, "Every start as master"; P24).

use std::ffi::OsString;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use ha::{Bootstrap, FenceToken, Gate, Names};
use postgres::Session;
use postgres::binaries::Binaries;
use postgres::command::controldata::{self, ControlData};
use postgres::follow::{make_primary, make_standby};
use postgres::history::plant;
use postgres::session::ConnectError;
use postgres::settings::{Access, floors};

use super::{catch_up, keep_won, still_won};
use crate::clock;
use crate::driver::context::Context;
use crate::supervised::{PostmasterState, StartCommand};

const CONTROL: Duration = Duration::from_secs(10);
/// How long a standby's start is watched before it goes on unwatched: it may need its upstream to become consistent.
const WATCH_STANDBY: Duration = Duration::from_secs(3);
/// Crash recovery may take long; a stop or a seal pushes it aside.
const WATCH_PRIMARY: Duration = Duration::from_secs(24 * 3600);
/// How long a start with new parameters may take before the last good ones come back.
const TRIAL: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(25);

/// Starts with `standby.signal`, streaming from nobody; after a rewind from the leader that it was rewound to, without
/// which it would never become consistent.
pub(super) async fn standby(context: &Context) -> anyhow::Result<()> {
    let (binaries, control) = startable(context).await?;
    uproot(context).await?;
    make_standby(&context.layout).await?;
    context.tracked.forget();
    let rewound_to = context.catch_up.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(timeline) = context.promise.get().catching_up {
        let upstream = if let Some(upstream) = rewound_to {
            upstream
        } else {
            // An earlier life rewound it.
            let state = context.record.get();
            catch_up::leader(state.record(), &context.member(), &context.channel.heard())?
        };
        catch_up::same_log(&super::follow::recorded(context, &upstream)?, timeline)?;
        // Without a leader it would never be consistent, and nothing would give it one: it is started when there is one.
        super::follow::promise(context, &upstream)
            .await
            .context("the leader that a rewound directory needs")?;
    }
    // Writers that are still led here must not find a server that refuses every write.
    let closed = context.led_to.keeps_closed(clock::now());
    let (gate, access) = if closed { (Gate::Closed, Access::Closed) } else { (Gate::Open, Access::Open) };
    context.tracked.set(|facts| {
        facts.gate = gate;
        facts.names = Names::Placeholder;
    });
    configure(context, Some(&control), &Names::Placeholder, access).await?;
    launch(context, &binaries).await?;
    watch(context, WATCH_STANDBY).await?;
    Ok(())
}

/// Starts out of recovery behind a closed gate.
pub(super) async fn primary(context: &Context, fence: &FenceToken, names: &Names) -> anyhow::Result<()> {
    let (binaries, control) = startable(context).await?;
    ensure!(
        control.timeline == fence.timeline(),
        "the control file shows timeline {}, the record {} (P24)",
        control.timeline,
        fence.timeline(),
    );
    context.tracked.forget();
    // A master may be lower than its last life: the others follow it down (P19).
    configure(context, None, names, Access::Closed).await?;
    let record = still_won(context, fence).await?;
    keep_won(context, &record).await?;
    make_primary(&context.layout).await?;
    launch(context, &binaries).await?;
    ensure!(watch(context, WATCH_PRIMARY).await?, "PostgreSQL does not answer");
    super::names::verify_at_start(context, names).await
}

/// The directory may be started at all, and what it says of itself.
async fn startable(context: &Context) -> anyhow::Result<(Binaries, ControlData)> {
    ensure!(context.postmaster.now().is_gone(), "PostgreSQL still runs");
    ensure!(context.layout.has_data(), "there is no data directory");
    let promise = context.promise.get();
    ensure!(promise.bootstrap != Bootstrap::Empty, "the data directory was never finished");
    ensure!(
        !promise.rewinding && !postgres::command::rewind::is_dirty(&context.layout),
        "a rewind of this directory did not end: it must not be started (P22)",
    );
    let layout = context.layout.clone();
    tokio::task::spawn_blocking(move || layout.prepare()).await??;
    let binaries = context.binaries()?;
    let control = controldata::read(&binaries, &context.layout.data(), CONTROL).await?;
    ensure!(
        promise.system_identifier.is_none_or(|promised| promised == control.system_identifier),
        "the data directory is of another database: {}",
        control.system_identifier,
    );
    Ok((binaries, control))
}

/// Removes history that was planted for a promotion that did not complete; keeps it when it did (P11).
pub(super) async fn uproot(context: &Context) -> anyhow::Result<()> {
    let planted = context.promise.get().planted;
    let Some(highest) = planted.iter().max() else { return Ok(()) };
    let binaries = context.binaries()?;
    let control = controldata::read(&binaries, &context.layout.data(), CONTROL).await?;
    if control.timeline <= *highest {
        let wal = context.layout.wal();
        postgres::durable::in_order(move || plant::uproot(&wal, &planted)).await??;
    }
    context.promise.update(|promise| promise.planted = Vec::new()).await?;
    Ok(())
}

/// `control`: of a standby, which must not be below its last master.
async fn configure(
    context: &Context,
    control: Option<&ControlData>,
    names: &Names,
    access: Access,
) -> anyhow::Result<()> {
    let wanted = context.settings()?.postgres.clone();
    let binaries = context.binaries()?;
    if let Err(error) = context.parameters.consider(&wanted, &binaries, &context.layout).await {
        tracing::warn!(error = format!("{error:#}"), "the parameters could not be judged");
    }
    let upstream = context.tracked.get().upstream;
    let mut settings = context.configuration(upstream.as_ref(), names, access)?;
    let effective = settings.user.effective();
    settings.protocol.floors = control.map(|control| floors(control, &effective)).unwrap_or_default();
    let lowest = settings.protocol.floors.clone();
    context.tracked.set(|facts| facts.floors = lowest);
    settings.write(&context.layout).await?;
    Ok(())
}

async fn launch(context: &Context, binaries: &Binaries) -> anyhow::Result<()> {
    let layout = context.layout.clone();
    postgres::durable::in_order(move || postgres::server::clear_remains(&layout)).await??;
    let command = postgres::server::StartCommand::new(binaries, &context.layout)?;
    let text =
        |text: OsString| text.into_string().map_err(|text| anyhow::anyhow!("not text: {}", text.display()));
    let command = StartCommand {
        program: command.program,
        args: command.args.into_iter().map(text).collect::<Result<_, _>>()?,
        env: command
            .environment
            .into_iter()
            .map(|(key, value)| anyhow::Ok((text(key)?, text(value)?)))
            .collect::<Result<_, _>>()?,
        cwd: context.layout.data(),
    };
    let pid = context.postmaster.start(command).await?;
    tracing::info!(pid, "started PostgreSQL");
    Ok(())
}

/// Waits until it answers (true), ends (an error) or the bound has passed (false). With parameters that it never ran
/// with before, it must answer within [`TRIAL`]: it may not even fail, such as with more memory than there is.
async fn watch(context: &Context, bound: Duration) -> anyhow::Result<bool> {
    let state = context.parameters.get();
    let trial = state.proved.is_some() && state.accepted != state.proved;
    if !trial {
        return answers(context, bound).await;
    }
    if answers(context, TRIAL).await? {
        return Ok(true);
    }
    context.postmaster.kill_all().await?;
    context.parameters.failed_to_start("no answer").await?;
    bail!("PostgreSQL does not answer within {TRIAL:?} with its new parameters");
}

async fn answers(context: &Context, bound: Duration) -> anyhow::Result<bool> {
    let until = tokio::time::Instant::now() + bound;
    let mut state = context.postmaster.state();
    while tokio::time::Instant::now() < until {
        if context.postmaster.now().pid().is_none() {
            let why = match *state.borrow_and_update() {
                PostmasterState::Gone { last: Some(exit) } | PostmasterState::Ending { last: Some(exit) } => {
                    exit.to_string()
                }
                other => format!("{other:?}"),
            };
            context.parameters.failed_to_start(&why).await?;
            bail!("PostgreSQL ended right after its start: {why}; its log says why");
        }
        context.look.notify_one();
        match Session::open(&context.layout, Duration::from_secs(1)).await {
            Ok(_) => return Ok(true),
            Err(ConnectError::Failed(error)) => return Err(error).context("the first session"),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
    Ok(false)
}
