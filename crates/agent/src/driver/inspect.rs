//! What nobody decides on and a user should know: settings that somebody changed under us, durability that somebody
//! lowered (P15), diverged WAL that is kept aside (§4 step 10).
//!
//! The file that the protocol rests on is compared with what it should say; when it differs it is written and loaded
//! again, since a superuser's `ALTER SYSTEM` rewrites it (allowed up to 16), and what is in force afterwards is asked.
//! Must never name a value: some are secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use ha::{Gate, Names};
use postgres::diverged::{self, Contents};
use postgres::parameters::{in_use, lowered_synchronous_commit};
use postgres::reload::reload;
use postgres::settings::{Access, render_names};
use postgres::{Session, layout::Layout};

use super::context::Context;
use crate::http::{DivergedWal, Findings};

const BOUND: Duration = Duration::from_secs(5);
/// Without these nothing that was acknowledged is durable.
const ESSENTIAL: [(&str, &str); 4] =
    [("fsync", "on"), ("full_page_writes", "on"), ("hot_standby", "on"), ("restart_after_crash", "off")];

/// Looks, mends what can be mended, and notes the rest.
pub(crate) async fn inspect(context: &Context) -> anyhow::Result<()> {
    let facts = context.tracked.get();
    let session = Session::open(&context.layout, BOUND).await?;
    let recovers: bool = session.value("ask whether it recovers", "SELECT pg_is_in_recovery()", &[]).await?;
    let mut foreign_settings = Vec::new();
    // What this agent does not know it cannot compare with: whom a standby follows, after a restart of the agent.
    let known = if recovers { facts.upstream.is_some() } else { facts.names != Names::Unknown };
    if known {
        let access = if facts.gate == Gate::Open { Access::Open } else { Access::Closed };
        let settings = context.configuration(facts.upstream.as_ref(), &facts.names, access)?;
        let path = context.layout.data().join("postgresql.auto.conf");
        let there = tokio::fs::read_to_string(&path).await.context("reading the protocol's settings")?;
        let changed = foreign(&there, &settings.protocol.render()?);
        if !changed.is_empty() {
            if !recovers && changed.iter().any(|name| name == "synchronous_standby_names") {
                // From empty to names is in force only when every process uses them (7a): they are set anew, with proof.
                context.tracked.set(|facts| facts.names = Names::Unknown);
            }
            settings.write_protocol(&context.layout).await?;
            reload(&context.layout, &session, BOUND).await?;
            foreign_settings.push(format!("somebody had changed {}: put right", changed.join(", ")));
        }
        let shown = render_names(&settings.protocol.names)?;
        let mut expected: BTreeMap<&str, String> =
            ESSENTIAL.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        expected.insert("synchronous_standby_names", shown);
        // A new session starts with what the postmaster has.
        let fresh = Session::open(&context.layout, BOUND).await?;
        let keys: Vec<&str> = expected.keys().copied().collect();
        let found = in_use(&fresh, &keys).await?;
        // While a change of ours is under way it says something else for a moment.
        if context.tracked.get() == facts {
            foreign_settings.extend(against(&expected, &found));
        }
    }
    if !facts.floors.is_empty() && super::upkeep::lowest(context, recovers).await? != facts.floors {
        // The master has gone down: what this standby was kept at is given anew, and then waits for its restart (P19).
        context.parameters.set(|state| state.given = None);
    }
    let lowered_durability = if recovers {
        Vec::new()
    } else {
        let lowered = lowered_synchronous_commit(&session).await?;
        lowered.iter().map(ToString::to_string).collect()
    };
    let diverged_wal = kept(&context.layout).await?;
    note(context, Findings { lowered_durability, foreign_settings, diverged_wal });
    Ok(())
}

/// What is kept aside, alone: after it has changed, while no server runs.
pub(crate) async fn note_kept(context: &Context) -> anyhow::Result<()> {
    let diverged_wal = kept(&context.layout).await?;
    let before = context.findings.borrow().clone();
    note(context, Findings { diverged_wal, ..before });
    Ok(())
}

fn note(context: &Context, findings: Findings) {
    context.findings.send_if_modified(|before| {
        let news = *before != findings;
        if news {
            tracing::warn!(
                lowered_durability = ?findings.lowered_durability,
                foreign_settings = ?findings.foreign_settings,
                diverged_wal = ?findings.diverged_wal,
                "what a user should know has changed"
            );
        }
        *before = findings;
        news
    });
}

async fn kept(layout: &Layout) -> anyhow::Result<Vec<DivergedWal>> {
    let kept = diverged::kept(layout).await?;
    Ok(kept
        .into_iter()
        .map(|kept| {
            let (fork, complete) = match &kept.contents {
                Contents::Log(manifest) => (manifest.fork, Some(manifest.is_complete())),
                Contents::Replaced => (None, Some(true)),
                Contents::Unknown { .. } => (None, None),
            };
            DivergedWal {
                path: kept.path.display().to_string(),
                bytes: kept.bytes,
                fork: fork.map(|fork| fork.to_string()),
                complete,
            }
        })
        .collect())
}

/// The parameters whose lines are not as rendered.
fn foreign(there: &str, rendered: &str) -> Vec<String> {
    fn lines(text: &str) -> BTreeSet<&str> {
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
    }
    let (there, rendered) = (lines(there), lines(rendered));
    let keys: BTreeSet<&str> = there
        .symmetric_difference(&rendered)
        .map(|line| line.split(['=', ' ']).next().unwrap_or_default())
        .collect();
    keys.into_iter().map(str::to_owned).collect()
}

/// What is in force against what should be.
fn against(expected: &BTreeMap<&str, String>, found: &BTreeMap<String, String>) -> Vec<String> {
    expected
        .iter()
        .filter_map(|(key, wanted)| {
            let found = found.get(*key)?;
            (found != wanted).then(|| format!("{key} is {found:?} in force, not {wanted:?}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "# Rendered by the agent\nfsync = 'on'\nprimary_conninfo = 'host=a password=x'\n";

    #[test]
    fn p15_an_altered_file_is_told_by_name_and_without_values() {
        assert_eq!(foreign(OURS, OURS), Vec::<String>::new());
        let rewritten =
            "# Do not edit this file manually!\nfsync = 'on'\nprimary_conninfo = 'host=a password=x'\n";
        assert_eq!(foreign(rewritten, OURS), Vec::<String>::new(), "comments are nothing");
        let altered = OURS.replace("fsync = 'on'", "fsync = 'off'") + "work_mem = '1GB'\n";
        assert_eq!(foreign(&altered, OURS), ["fsync", "work_mem"]);
        let reset = OURS.lines().filter(|line| !line.starts_with("primary")).collect::<Vec<_>>().join("\n");
        assert_eq!(foreign(&reset, OURS), ["primary_conninfo"]);
    }

    #[test]
    fn p15_what_is_in_force_against_the_file_is_told() {
        let expected = BTreeMap::from([("fsync", "on".to_owned()), ("hot_standby", "on".to_owned())]);
        let found = |fsync: &str| BTreeMap::from([("fsync".to_owned(), fsync.to_owned())]);
        assert!(against(&expected, &found("on")).is_empty(), "what was not asked is not told");
        assert_eq!(against(&expected, &found("off")).len(), 1);
    }
}
