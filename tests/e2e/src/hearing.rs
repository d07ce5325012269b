//! What applications heard from the elector beside them: their logs, followed while they live, and the verdicts.
//!
//! Each line has the time before the question, the time after the answer, and the answer. All nodes of the rig share one
//! clock, so times of different pods compare. A pod **claims** when it hears its own name: at some time between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::world::now;

/// Between two looks for new pods.
const LOOK: Duration = Duration::from_millis(300);
/// An application says something every 100 ms; a stream without a word for so long is opened anew.
const SILENCE: Duration = Duration::from_secs(4);

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Heard {
    /// Microseconds since 1970 before the question.
    pub(crate) asked: u64,
    /// The same after the answer.
    pub(crate) told: u64,
    /// Who leads; empty when nobody does, or nobody answered.
    pub(crate) name: String,
}

type Logs = Arc<Mutex<BTreeMap<String, BTreeSet<Heard>>>>;

/// Follows every pod of an application until it is dropped.
pub(crate) struct Hearing {
    pods: Api<Pod>,
    selector: ListParams,
    logs: Logs,
    task: JoinHandle<()>,
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hearing {
    /// Of the containers `app` of the pods with this label.
    pub(crate) fn start(pods: Api<Pod>, label: &str) -> Self {
        let selector = ListParams::default().labels(label);
        let logs = Logs::default();
        let task = tokio::spawn(follow_all(pods.clone(), selector.clone(), Arc::clone(&logs)));
        Self { pods, selector, logs, task }
    }

    /// The pods that run and are not leaving.
    pub(crate) async fn living(&self) -> Result<Vec<Pod>> {
        let pods = self.pods.list(&self.selector).await.context("list the application's pods")?;
        let lives = |pod: &Pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        };
        Ok(pods.into_iter().filter(lives).collect())
    }

    /// Everything by pod, those that are gone too.
    pub(crate) fn all(&self) -> BTreeMap<String, Vec<Heard>> {
        let logs = self.logs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        logs.iter().map(|(pod, heard)| (pod.clone(), heard.iter().cloned().collect())).collect()
    }

    /// What this pod heard last, unless that is too long ago to mean anything.
    pub(crate) fn last(&self, pod: &str) -> Option<Heard> {
        let recent = now() - 1_500_000;
        self.all().remove(pod)?.pop().filter(|heard| heard.asked > recent)
    }

    /// When somebody first heard this name after `since`.
    pub(crate) fn first_named(&self, name: &str, since: u64) -> Result<Duration> {
        let all = self.all();
        let times = all.values().flatten().filter(|heard| heard.asked >= since && heard.name == name);
        match times.map(|heard| heard.told).min() {
            Some(at) => Ok(Duration::from_micros(at - since)),
            None => bail!("nobody heard of {name}"),
        }
    }

    /// The longest time in `window` in which no pod claims to lead.
    pub(crate) fn longest_without_leader(&self, window: Range<u64>) -> Duration {
        let all = self.all();
        let mut claims: Vec<u64> = claims(&all).map(|(_, heard)| heard.told).collect();
        claims.retain(|at| window.contains(at));
        claims.push(window.end);
        claims.sort_unstable();
        let starts = std::iter::once(window.start).chain(claims.iter().copied());
        let longest = starts.zip(&claims).map(|(from, to)| to - from).max().unwrap_or_default();
        Duration::from_micros(longest)
    }

    /// From the last claim of a pod to the first of its successor.
    pub(crate) fn between(&self, old: &str, new: &str, since: u64) -> Result<Duration> {
        let all = self.all();
        let of =
            |pod: &str| claims(&all).filter(move |(name, _)| *name == pod).map(|(_, heard)| heard).collect();
        let (old, new): (Vec<&Heard>, Vec<&Heard>) = (of(old), of(new));
        let first = new.iter().find(|heard| heard.asked >= since).context("the new one never claimed")?;
        let last = old.iter().rfind(|heard| heard.told <= first.told).context("the old one never claimed")?;
        Ok(Duration::from_micros(first.told - last.told))
    }

    /// The last claim in `window`, by anybody.
    pub(crate) fn last_claim(&self, window: Range<u64>) -> Option<(String, Heard)> {
        let all = self.all();
        let claims = claims(&all).filter(|(_, heard)| window.contains(&heard.asked));
        claims.max_by_key(|(_, heard)| heard.asked).map(|(pod, heard)| (pod.to_owned(), heard.clone()))
    }

    /// Never did two pods claim at one instant.
    pub(crate) fn judge(&self) -> Result<()> {
        let all = self.all();
        let mut spans: Vec<(u64, u64, &str)> = Vec::new();
        for (pod, heard) in &all {
            for run in heard.chunk_by(|one, next| (one.name == *pod) == (next.name == *pod)) {
                if let [first, .., last] = run
                    && first.name == *pod
                    && first.told < last.asked
                {
                    spans.push((first.told, last.asked, pod));
                }
            }
        }
        spans.sort_unstable();
        ensure!(!spans.is_empty(), "nobody ever claimed to lead");
        for pair in spans.windows(2) {
            let [(_, until, one), (from, _, other)] = pair else { continue };
            ensure!(
                from > until || one == other,
                "{one} and {other} led at one time, for {:?}",
                Duration::from_micros(until - from)
            );
        }
        Ok(())
    }
}

/// Answers in which a pod heard its own name.
fn claims(all: &BTreeMap<String, Vec<Heard>>) -> impl Iterator<Item = (&str, &Heard)> {
    all.iter().flat_map(|(pod, heard)| {
        heard.iter().filter(move |heard| heard.name == *pod).map(move |heard| (pod.as_str(), heard))
    })
}

async fn follow_all(pods: Api<Pod>, selector: ListParams, logs: Logs) {
    let mut followed = BTreeSet::new();
    let mut streams = tokio::task::JoinSet::new();
    loop {
        let there = tokio::time::timeout(SILENCE, pods.list(&selector)).await;
        for pod in there.into_iter().flatten().flatten() {
            let Some(name) = pod.metadata.name else { continue };
            if followed.insert(name.clone()) {
                let (pods, logs, pod) = (pods.clone(), Arc::clone(&logs), name);
                // In the set, so that it ends with this task.
                streams.spawn(async move {
                    while follow(&pods, &pod, &logs).await.is_continue() {
                        tokio::time::sleep(LOOK).await;
                    }
                });
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// From its first line on, whatever is known already; breaks when the pod is gone.
async fn follow(pods: &Api<Pod>, pod: &str, logs: &Logs) -> std::ops::ControlFlow<()> {
    use std::ops::ControlFlow::{Break, Continue};
    let what = LogParams { container: Some("app".to_owned()), follow: true, ..LogParams::default() };
    let stream = match tokio::time::timeout(SILENCE, pods.log_stream(pod, &what)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Break(()),
        Ok(Err(_)) | Err(_) => return Continue(()),
    };
    let mut lines = stream.lines();
    while let Ok(Ok(Some(text))) = tokio::time::timeout(SILENCE, lines.try_next()).await {
        if let Some(heard) = line(&text) {
            let mut logs = logs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            logs.entry(pod.to_owned()).or_default().insert(heard);
        }
    }
    Continue(())
}

/// `1795292952.918781 1795292952.920344 {"name":"web-…"}`; `none` when nobody answered.
fn line(text: &str) -> Option<Heard> {
    let mut words = text.splitn(3, ' ');
    let asked = micros(words.next()?)?;
    let told = micros(words.next()?)?;
    let answer = words.next()?;
    if answer == "none" {
        return Some(Heard { asked, told, name: String::new() });
    }
    let answer: Value = serde_json::from_str(answer).ok()?;
    Some(Heard { asked, told, name: answer["name"].as_str()?.to_owned() })
}

fn micros(text: &str) -> Option<u64> {
    let (seconds, micros) = text.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Told<'a> = (&'a str, &'a [(u64, u64, &'a str)]);

    fn hearing(all: &[Told<'_>]) -> Hearing {
        let logs = all.iter().map(|(pod, heard)| {
            let heard = heard.iter().map(|&(asked, told, name)| Heard { asked, told, name: name.to_owned() });
            ((*pod).to_owned(), heard.collect())
        });
        let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        Hearing {
            pods: Api::namespaced(kube::Client::try_from(nowhere).unwrap(), "none"),
            selector: ListParams::default(),
            logs: Arc::new(Mutex::new(logs.collect())),
            task: tokio::spawn(async {}),
        }
    }

    #[tokio::test]
    async fn two_that_claim_at_once_are_seen_and_two_in_turn_are_not() {
        let in_turn = hearing(&[
            ("a", &[(0, 1, "a"), (10, 11, "a"), (20, 24, "a"), (30, 31, "b")]),
            ("b", &[(1, 2, "a"), (22, 23, "b"), (32, 33, "b")]),
        ]);
        in_turn.judge().unwrap();
        assert_eq!(in_turn.longest_without_leader(0..33), Duration::from_micros(12));
        let at_once = hearing(&[
            ("a", &[(0, 1, "a"), (10, 11, "a"), (20, 24, "a"), (30, 31, "b")]),
            ("b", &[(1, 2, "a"), (12, 13, "b"), (32, 33, "b")]),
        ]);
        at_once.judge().unwrap_err();
    }

    #[test]
    fn a_line_has_two_times_and_an_answer() {
        let heard = line(r#"1795292952.918781 1795292952.920344 {"name":"web-0"}"#).unwrap();
        assert_eq!((heard.told - heard.asked, heard.name.as_str()), (1563, "web-0"));
        assert_eq!(line("1795292952.918781 1795292952.920344 none").unwrap().name, "");
        assert_eq!(line("bash: connect: Connection refused"), None);
    }
}
