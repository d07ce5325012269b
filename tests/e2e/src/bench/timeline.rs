//! What happened around a fault, by time: who led, which label each member had, how many writes were acknowledged.
//!
//! Writes are counted from the clients' own logs, when the acknowledgement arrived; roles are what looks at the API server
//! saw. While it does not answer, nothing is known of roles, and that is drawn as nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::system::{System, View};
use crate::world::{World, now};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Later than this, nothing is known.
const LOOK: Duration = Duration::from_secs(1);
/// Width of a bucket, in milliseconds.
pub(crate) const BUCKET: u64 = 50;
/// Nothing is known.
pub(crate) const UNKNOWN: &str = "?";
/// No pod, or none with a label.
pub(crate) const NOBODY: &str = "-";

/// Looks, each with its time, as long as it is awaited.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// When each view began, in microseconds since 1970; none where a look failed. Equal neighbours are one.
    looks: RefCell<Vec<(u64, Option<View>)>>,
}

impl Observed {
    /// Looks until it is dropped.
    pub(crate) async fn observe<S: System>(&self, world: &World, system: &S) -> Infallible {
        loop {
            let view = tokio::time::timeout(LOOK, system.look(world)).await;
            self.add(now(), view.ok().and_then(Result::ok));
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn add(&self, at: u64, view: Option<View>) {
        let mut looks = self.looks.borrow_mut();
        if looks.last().is_none_or(|(_, last)| *last != view) {
            looks.push((at, view));
        }
    }

    /// The last thing that was known.
    pub(crate) fn last(&self) -> Option<View> {
        self.looks.borrow().iter().rev().find_map(|(_, view)| view.clone())
    }

    /// When a later term than this was first seen open.
    pub(crate) fn opened_after(&self, term: u64) -> Option<u64> {
        let looks = self.looks.borrow();
        let mut known = looks.iter().filter_map(|(at, view)| Some((at, view.as_ref()?)));
        known.find(|(_, view)| view.term > term && view.open).map(|(at, _)| *at)
    }

    /// From a second or so before the fault on; times in microseconds since 1970.
    pub(crate) fn timeline(&self, acks: &Acks, from: u64, fault: u64, to: u64) -> Timeline {
        let ms = |at: u64| {
            i64::try_from(at / 1000).unwrap_or(i64::MAX) - i64::try_from(fault / 1000).unwrap_or(i64::MAX)
        };
        let mut timeline =
            Timeline { start_ms: ms(from), end_ms: ms(to), bucket_ms: BUCKET, ..Timeline::default() };
        let buckets = usize::try_from((to.saturating_sub(from) / 1000).div_ceil(BUCKET)).unwrap_or(0);
        for (kind, times) in acks {
            let mut counts = vec![0; buckets];
            for at in times.iter().filter(|at| (from..to).contains(at)) {
                let bucket = usize::try_from((at - from) / 1000 / BUCKET).unwrap_or(usize::MAX);
                if let Some(count) = counts.get_mut(bucket) {
                    *count += 1;
                }
            }
            timeline.acks.insert(kind.clone(), counts);
        }
        let looks = self.looks.borrow();
        let seen = looks.iter().filter_map(|(_, view)| view.as_ref());
        for name in seen.flat_map(|view| view.roles.keys()) {
            timeline.roles.entry(name.clone()).or_default();
        }
        for (at, view) in looks.iter().filter(|(at, _)| *at < to) {
            let at = ms(*at).max(timeline.start_ms);
            let leader = view.as_ref().map(|view| {
                let open = if view.open { "" } else { " …" };
                format!("{} {}{open}", view.master.as_deref().unwrap_or(NOBODY), view.term)
            });
            turn(&mut timeline.leader, at, leader.as_deref().unwrap_or(UNKNOWN));
            for (name, band) in &mut timeline.roles {
                let role = view.as_ref().map(|view| view.roles.get(name).map_or(NOBODY, String::as_str));
                turn(band, at, role.unwrap_or(UNKNOWN));
            }
        }
        timeline
    }
}

/// Adds a change, unless it is none; of two at one time the later one counts.
fn turn(band: &mut Vec<(i64, String)>, at: i64, what: &str) {
    if band.last().is_some_and(|(last, _)| *last == at) {
        band.pop();
    }
    if band.last().is_none_or(|(_, last)| last != what) {
        band.push((at, what.to_owned()));
    }
}

/// For the picture. Times in milliseconds after the fault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Timeline {
    /// When it begins.
    pub(crate) start_ms: i64,
    /// When it ends.
    pub(crate) end_ms: i64,
    /// The width of a bucket.
    pub(crate) bucket_ms: u64,
    /// Acknowledged writes in each bucket, by kind of connection.
    pub(crate) acks: BTreeMap<String, Vec<u32>>,
    /// Who leads in which term, from when on; `…` while that term is not open.
    pub(crate) leader: Vec<(i64, String)>,
    /// The label of each member, from when on.
    pub(crate) roles: BTreeMap<String, Vec<(i64, String)>>,
}

/// When writes were acknowledged, in microseconds since 1970, by kind of connection.
pub(crate) type Acks = BTreeMap<String, Vec<u64>>;

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Whose { mode: String },
    Attempt { outcome: String, ended: u64 },
}

/// What a client's logs say was acknowledged; readers' logs are left out.
pub(crate) fn acknowledged(log: &str) -> Result<Acks> {
    let mut acks = Acks::new();
    let mut kind = None;
    for (number, line) in log.lines().enumerate() {
        match serde_json::from_str(line)
            .with_context(|| format!("line {} of the client's log", number + 1))?
        {
            Entry::Whose { mode } => kind = (mode != "read").then_some(mode),
            Entry::Attempt { outcome, ended } => {
                if let Some(kind) = &kind
                    && outcome == "ok"
                {
                    acks.entry(kind.clone()).or_default().push(ended);
                }
            }
        }
    }
    Ok(acks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(master: &str, term: u64, open: bool, roles: &[(&str, &str)]) -> View {
        let roles = roles.iter().map(|(name, role)| ((*name).to_owned(), (*role).to_owned())).collect();
        View { master: Some(master.to_owned()), term, open, roles }
    }

    #[test]
    fn acknowledgements_are_read_by_kind_and_readers_left_out() {
        let log = concat!(
            "{\"writer\":\"fresh_1\",\"mode\":\"fresh\",\"host\":\"h\",\"table\":\"t\"}\n",
            "{\"n\":1,\"outcome\":\"ok\",\"began\":1,\"ended\":2}\n",
            "{\"n\":2,\"outcome\":\"unknown\",\"began\":3,\"ended\":4}\n",
            "{\"writer\":\"read_1\",\"mode\":\"read\",\"host\":\"h\",\"table\":\"\"}\n",
            "{\"n\":1,\"outcome\":\"ok\",\"began\":1,\"ended\":2}\n",
            "{\"writer\":\"kept_1\",\"mode\":\"kept\",\"host\":\"h\",\"table\":\"t\"}\n",
            "{\"n\":1,\"outcome\":\"ok\",\"began\":5,\"ended\":6}\n",
        );
        let acks = acknowledged(log).unwrap();
        assert_eq!(acks, Acks::from([("fresh".to_owned(), vec![2]), ("kept".to_owned(), vec![6])]));
        assert!(acknowledged("{\"n\":1").is_err());
    }

    #[test]
    fn a_timeline_counts_in_buckets_and_keeps_only_changes() {
        let observed = Observed::default();
        let before = view("pg-0", 1, true, &[("pg-0", "master"), ("pg-1", "replica")]);
        observed.add(500_000, Some(before.clone()));
        observed.add(600_000, Some(before));
        observed.add(2_100_000, None);
        observed.add(2_300_000, Some(view("pg-1", 2, false, &[("pg-1", "replica")])));
        observed.add(2_400_000, Some(view("pg-1", 2, true, &[("pg-1", "master")])));
        assert_eq!(observed.opened_after(1), Some(2_400_000));
        assert_eq!(observed.opened_after(2), None);
        assert_eq!(observed.last().unwrap().term, 2);
        let acks =
            Acks::from([("kept".to_owned(), vec![999_999, 1_000_000, 1_049_999, 1_050_000, 2_450_000])]);
        let timeline = observed.timeline(&acks, 1_000_000, 2_000_000, 2_500_000);
        assert_eq!((timeline.start_ms, timeline.end_ms), (-1000, 500));
        let counts = &timeline.acks["kept"];
        assert_eq!((counts.len(), counts[0], counts[1], counts[29]), (30, 2, 1, 1));
        let band =
            |band: &[(i64, String)]| band.iter().map(|(at, what)| format!("{at} {what}")).collect::<Vec<_>>();
        assert_eq!(band(&timeline.leader), ["-1000 pg-0 1", "100 ?", "300 pg-1 2 …", "400 pg-1 2"]);
        assert_eq!(band(&timeline.roles["pg-0"]), ["-1000 master", "100 ?", "300 -"]);
        assert_eq!(band(&timeline.roles["pg-1"]), ["-1000 replica", "100 ?", "300 replica", "400 master"]);
        let text = serde_json::to_string(&timeline).unwrap();
        assert_eq!(serde_json::from_str::<Timeline>(&text).unwrap(), timeline);
    }
}
