//! What a running Postgres needs besides the protocol: new parameters and certificates, passwords, the end of its log
//! while nobody leads it, slots for the others, restarts that were asked for.
//!
//! Decides only what is due. Each is pushed aside by any act of the protocol, and none changes a role.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ha::{Action, Condition, Gate, Incarnation, Instant, MemberName, Names, Postgres, StopMode, View};
use postgres::Session;
use postgres::command::controldata;
use postgres::parameters::pending_restart;
use postgres::reload::{ReloadError, reload};
use postgres::replication::slots::{Dropped, advance_slot, drop_slots_except, ensure_slots};
use postgres::roles::drop_roles_except;
use postgres::settings::{Access, floors};

use super::act;
use super::context::Context;
use super::inspect::inspect;

const BOUND: Duration = Duration::from_secs(5);
/// Bound of a look at the control file.
const CONTROL: Duration = Duration::from_secs(10);
/// How often slots on a standby are moved.
const SLOTS: Duration = Duration::from_secs(10);
/// How often it is looked for what a user should know.
const INSPECT: Duration = Duration::from_secs(15);

/// When the regular ones were last begun.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Begun {
    slots: Instant,
    inspected: Instant,
}

impl Begun {
    /// This one begins.
    pub(crate) fn note(&mut self, due: Due, now: Instant) {
        match due {
            Due::Slots => self.slots = now,
            Due::Inspect => self.inspected = now,
            _ => {}
        }
    }
}

/// An upkeep that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Find the end of the log of a standby that streams from nobody.
    EndOfLog,
    /// Give the server the newest parameters and certificates.
    Configure,
    /// Passwords have changed.
    Provision,
    /// A restart was asked for, and parameters wait for one.
    Restart,
    /// Keep the other members' slots on this standby; drop those of members that are gone.
    Slots,
    /// Nobody is led to this standby for writing any more: readers may come in.
    Readers,
    /// Look for what a user should know.
    Inspect,
}

impl Due {
    /// Its name in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EndOfLog => "end-of-log",
            Self::Configure => "configure",
            Self::Provision => "passwords",
            Self::Restart => "restart",
            Self::Slots => "slots",
            Self::Readers => "admit-readers",
            Self::Inspect => "inspect",
        }
    }

    /// What nothing less urgent may push aside: a restart that has begun to stop is a stop.
    pub(crate) fn as_urgent_as(self) -> Vec<Action> {
        match self {
            Self::Restart => vec![Action::Stop { mode: StopMode::Fast }],
            _ => Vec::new(),
        }
    }
}

/// The most important upkeep that is due.
pub(crate) fn due(context: &Context, view: &View, begun: Begun, now: Instant) -> Option<Due> {
    let first = changed(context, view, begun, now);
    let regular = match &view.postgres {
        Postgres::Primary(primary) => primary.gate == Gate::Open,
        Postgres::Standby(standby) => standby.streaming && standby.upstream.is_some(),
        _ => false,
    };
    // Only what was given can be compared.
    let run = context.tracked.get().run;
    let given = context.parameters.get().given.is_some_and(|(given, ..)| given == run);
    let due = regular && given && now.since(begun.inspected) >= INSPECT;
    first.or(due.then_some(Due::Inspect))
}

fn changed(context: &Context, view: &View, begun: Begun, now: Instant) -> Option<Due> {
    let facts = context.tracked.get();
    let known = context.files.get();
    let wanted = known.settings.as_ref()?;
    let state = context.parameters.get();
    let role_known = match &view.postgres {
        Postgres::Standby(standby) => {
            if standby.upstream.is_none() && !standby.streaming && standby.end.is_none() {
                return Some(Due::EndOfLog);
            }
            if facts.gate == Gate::Closed && !context.led_to.keeps_closed(now) {
                return Some(Due::Readers);
            }
            // After a restart of the agent alone, whom it follows is not known until it is told again.
            standby.upstream.is_some() || standby.end.is_some()
        }
        Postgres::Primary(_) => facts.names != Names::Unknown,
        _ => return None,
    };
    let refused = state.refused.as_ref().is_some_and(|(refused, _)| *refused == wanted.postgres);
    let newest = if refused { state.accepted.clone().unwrap_or_default() } else { wanted.postgres.clone() };
    if role_known && state.given != Some((facts.run, newest, known.tls_generation)) {
        return Some(Due::Configure);
    }
    // One at a time: what the operator knows of the others lags behind what they say themselves.
    let others_serve = wanted.members.keys().filter(|name| **name != view.member.name.0).all(|name| {
        view.peers.get(&MemberName(name.clone())).is_some_and(|peer| {
            matches!(peer.announcement.condition, Condition::Standby | Condition::Leading)
        })
    });
    let asked = !wanted.paused
        && wanted.restart.contains(&view.member.name.0)
        && !state.pending_restart.is_empty()
        && others_serve;
    match &view.postgres {
        Postgres::Primary(primary) if primary.provisioned => {
            let passwords = known.superuser.zip(known.app);
            if passwords.is_some() && passwords != context.provisioned_with() {
                return Some(Due::Provision);
            }
            if asked && primary.gate == Gate::Open {
                return Some(Due::Restart);
            }
            let settled = primary.gate == Gate::Open && now.since(begun.slots) >= SLOTS;
            let sweep = settled && present(context).is_some_and(|all| facts.swept.as_ref() != Some(&all));
            sweep.then_some(Due::Slots)
        }
        Postgres::Standby(standby) if standby.streaming => {
            if asked {
                return Some(Due::Restart);
            }
            (now.since(begun.slots) >= SLOTS).then_some(Due::Slots)
        }
        _ => None,
    }
}

/// Does it.
pub(crate) async fn run(context: &Context, due: Due) -> anyhow::Result<()> {
    let _acting = context.acting();
    match due {
        Due::EndOfLog => act::end_of_log(context).await,
        Due::Configure => configure(context).await,
        Due::Provision => act::provision_again(context).await,
        Due::Restart => act::restart(context).await,
        Due::Slots => slots(context).await,
        Due::Readers => act::open_to_readers(context).await,
        Due::Inspect => inspect(context).await,
    }
}

/// Renders everything anew for the present role, reloads, and goes back when PostgreSQL finds fault with it.
async fn configure(context: &Context) -> anyhow::Result<()> {
    let known = context.files.get();
    let wanted = context.settings()?.postgres.clone();
    let before = context.parameters.get().accepted;
    let binaries = context.binaries()?;
    let taken = context.parameters.consider(&wanted, &binaries, &context.layout).await?;
    let session = Session::open(&context.layout, BOUND).await?;
    match give(context, &session).await {
        Err(error) if taken => {
            let Some(ReloadError::Problems { problems }) = error.downcast_ref() else { return Err(error) };
            context.parameters.refuse(&wanted, problems.clone());
            context.parameters.set(|state| state.accepted.clone_from(&before));
            if let Some(before) = &before {
                context.parameters.accept(before).await?;
                context.parameters.refuse(&wanted, problems.clone());
            }
            give(context, &session).await?;
        }
        other => other?,
    }
    // It answers, so it is consistent and needs nobody for that any more.
    context.promise.update(|promise| promise.catching_up = None).await?;
    // Asked on a session opened after the reload.
    let session = Session::open(&context.layout, BOUND).await?;
    let pending = pending_restart(&session).await?;
    let version: String = session.value("read the version", "SHOW server_version", &[]).await?;
    let version = version.split_whitespace().next().map(str::to_owned);
    if pending.is_empty() {
        context.parameters.prove().await?;
    } else {
        tracing::info!(?pending, "parameters wait for a restart");
    }
    let run = context.tracked.get().run;
    let newest = context.parameters.usable(&wanted);
    context.parameters.set(|state| {
        state.pending_restart = pending;
        state.version = version;
        state.given = Some((run, newest, known.tls_generation));
    });
    Ok(())
}

/// P19: what this member must not be below now. A master nothing: it goes down first. A standby what its log demands, which
/// goes down when its master has.
pub(super) async fn lowest(context: &Context, recovers: bool) -> anyhow::Result<BTreeMap<String, u64>> {
    if !recovers {
        return Ok(BTreeMap::new());
    }
    let control = controldata::read(&context.binaries()?, &context.layout.data(), CONTROL).await?;
    let facts = context.tracked.get();
    let settings = context.configuration(facts.upstream.as_ref(), &facts.names, Access::Closed)?;
    Ok(floors(&control, &settings.user.effective()))
}

async fn give(context: &Context, session: &Session) -> anyhow::Result<()> {
    let recovers: bool = session.value("ask whether it recovers", "SELECT pg_is_in_recovery()", &[]).await?;
    let lowest = lowest(context, recovers).await?;
    context.tracked.set(|facts| facts.floors = lowest);
    let facts = context.tracked.get();
    let access = if facts.gate == Gate::Open { Access::Open } else { Access::Closed };
    let settings = context.configuration(facts.upstream.as_ref(), &facts.names, access)?;
    settings.write(&context.layout).await?;
    // Certificates are read again even when no file of the configuration differs.
    reload(&context.layout, session, BOUND).await?;
    Ok(())
}

/// Slots. On a standby, which may be the next master, the others' are kept and moved to what each has flushed. On both,
/// those of members that are gone for good are dropped, or they would hold WAL for ever; on the master their roles too.
async fn slots(context: &Context) -> anyhow::Result<()> {
    let session = Session::open(&context.layout, BOUND).await?;
    let recovers: bool = session.value("ask whether it recovers", "SELECT pg_is_in_recovery()", &[]).await?;
    let own = context.promise.get().incarnation;
    let others: BTreeSet<Incarnation> =
        context.members().into_iter().filter(|member| *member != own).collect();
    let present = present(context);
    if recovers {
        ensure_slots(&session, &others).await?;
        for peer in context.channel.heard().values() {
            if let Some(flushed) = peer.announcement.flushed
                && others.contains(&peer.announcement.member.incarnation)
            {
                advance_slot(&session, peer.announcement.member.incarnation, flushed).await?;
            }
        }
    }
    let Some(present) = present else { return Ok(()) };
    let slots = drop_slots_except(&session, &present).await?;
    let roles = if recovers { Dropped::default() } else { drop_roles_except(&session, &present).await? };
    if !slots.dropped.is_empty() || !roles.dropped.is_empty() {
        tracing::info!(slots = ?slots.dropped, roles = ?roles.dropped, "dropped what members left that are gone for good");
    }
    context.tracked.set(|facts| {
        // One that comes back is prepared anew.
        facts.prepared.retain(|member| present.contains(member));
        if slots.in_use.is_empty() && roles.in_use.is_empty() {
            facts.swept = Some(present);
        }
    });
    Ok(())
}

/// Everybody who is not gone for good, when that is known.
fn present(context: &Context) -> Option<BTreeSet<Incarnation>> {
    let state = context.record.get();
    let wanted = context.files.get().settings?;
    super::gone::present(state.record()?, wanted.members.keys(), &context.channel.heard(), &context.member())
}
