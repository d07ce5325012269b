//! Watches of single named objects, or of a labelled set, with the age of what they know (K17).
//!
//! A Role with `resourceNames` admits a watch only with `fieldSelector metadata.name=…`, so a member has
//! one watch per object. Each keeps the newest state in a channel together with when the API server was last
//! heard: a watch that is silent because nothing changes and one that is silent because the network is gone
//! look the same otherwise. Short watches (the server ends each after `period`) make the difference.
//!
//! It never takes the end of a watch, an error or a gap for the absence of an object: only a completed list
//! or a deletion event says `Missing`.

use crate::{
    call::{Calls, Object, bounded},
    clock::boottime,
};
use futures::{StreamExt, TryStreamExt};
use ha::Instant;
use kube::{
    Api, Client,
    api::{ListParams, WatchEvent, WatchParams},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

/// Default length of one watch: also how old knowledge may be before it counts as stale.
pub const PERIOD: Duration = Duration::from_secs(15);

/// How much longer than its length a watch may be silent before its connection is given up.
const GRACE: Duration = Duration::from_secs(3);

/// First and longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The object of this name.
    Name(String),
    /// All that this label selector matches.
    Labels(String),
}

/// What is known of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<K> {
    /// This is it, or was.
    Known(Arc<K>),
    /// The API server said that there is none.
    Missing,
    /// Nobody has said anything yet.
    Unknown,
}

/// The newest state of a watch.
#[derive(Debug, Clone)]
pub struct Seen<K> {
    /// The objects by name; `None` until the first list came through.
    pub objects: Option<Arc<BTreeMap<String, Arc<K>>>>,
    /// When the API server was last heard on this watch, successfully.
    pub last_contact: Option<Instant>,
    /// What went wrong since then.
    pub problem: Option<Arc<str>>,
}

impl<K> Default for Seen<K> {
    fn default() -> Self {
        Self { objects: None, last_contact: None, problem: None }
    }
}

impl<K> Seen<K> {
    /// The object of this name.
    pub fn lookup(&self, name: &str) -> Lookup<K> {
        match self.objects.as_ref().map(|objects| objects.get(name)) {
            Some(Some(object)) => Lookup::Known(object.clone()),
            Some(None) => Lookup::Missing,
            None => Lookup::Unknown,
        }
    }

    /// How old this knowledge may be at `now`; `None` when there never was any.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.last_contact.map(|contact| now.since(contact))
    }
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch<K> {
    seen: watch::Receiver<Seen<K>>,
    task: JoinHandle<()>,
}

impl<K> Drop for Watch<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K: Object> Watch<K> {
    /// Watches `selection` in `namespace` for as long as the value lives. `client` must have no read
    /// timeout shorter than `period` ([`crate::client::Clients::watches`]).
    pub fn start(client: Client, namespace: &str, selection: Selection, period: Duration) -> Self {
        let (sender, seen) = watch::channel(Seen::default());
        let api = Api::namespaced(client.clone(), namespace);
        let calls = Calls::new(client, period);
        let task = tokio::spawn(run(api, calls, selection, period, sender));
        Self { seen, task }
    }

    /// Watches one object for [`PERIOD`] at a time.
    pub fn named(client: Client, namespace: &str, name: &str) -> Self {
        Self::start(client, namespace, Selection::Name(name.to_owned()), PERIOD)
    }

    /// Watches a labelled set for [`PERIOD`] at a time.
    pub fn labelled(client: Client, namespace: &str, labels: &str) -> Self {
        Self::start(client, namespace, Selection::Labels(labels.to_owned()), PERIOD)
    }

    /// The newest state.
    pub fn seen(&self) -> Seen<K> {
        self.seen.borrow().clone()
    }

    /// A receiver that is woken when an object, or the kind of problem, changes (not by mere signs of life).
    pub fn subscribe(&self) -> watch::Receiver<Seen<K>> {
        self.seen.clone()
    }

    /// Waits until the first list came through, for at most `bound`.
    pub async fn first(&self, bound: Duration) -> Option<Seen<K>> {
        let mut seen = self.seen.clone();
        let known = tokio::time::timeout(bound, seen.wait_for(|seen| seen.objects.is_some())).await;
        known.ok()?.ok().map(|seen| seen.clone())
    }
}

async fn run<K: Object>(
    api: Api<K>,
    calls: Calls,
    selection: Selection,
    period: Duration,
    sender: watch::Sender<Seen<K>>,
) {
    let mut version = None;
    let mut pause = BACKOFF.0;
    while !sender.is_closed() {
        let started = tokio::time::Instant::now();
        let following = version.is_some();
        let turn = match version.take() {
            None => list(&api, &calls, &selection, &sender).await,
            Some(from) => follow(&api, &selection, period, from, &sender).await,
        };
        match turn {
            Ok(next) => {
                version = next;
                pause = BACKOFF.0;
                // A server that ends every watch at once must not be asked as fast as it answers.
                if following && started.elapsed() < BACKOFF.0 {
                    tokio::time::sleep(BACKOFF.0).await;
                }
            }
            Err(failure) => {
                sender.send_if_modified(|seen| {
                    let changed = seen.problem.as_deref() != Some(&failure.why);
                    seen.problem = Some(failure.why.as_str().into());
                    changed
                });
                version = failure.resume;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }
}

struct Failure {
    why: String,
    /// Where to go on; `None`: list again.
    resume: Option<String>,
}

impl Failure {
    fn new(why: &(impl ToString + ?Sized), resume: Option<String>) -> Self {
        Self { why: why.to_string(), resume }
    }
}

async fn list<K: Object>(
    api: &Api<K>,
    calls: &Calls,
    selection: &Selection,
    sender: &watch::Sender<Seen<K>>,
) -> Result<Option<String>, Failure> {
    let params = match selection {
        Selection::Name(name) => ListParams::default().fields(&format!("metadata.name={name}")),
        Selection::Labels(labels) => ListParams::default().labels(labels),
    };
    let asked = boottime();
    let list = bounded("list", calls.bound(), api.list(&params))
        .await
        .map_err(|error| Failure::new(&error.told(), None))?;
    let version = list.metadata.resource_version.clone();
    let objects: BTreeMap<_, _> = list
        .items
        .into_iter()
        .filter_map(|object| Some((object.meta().name.clone()?, Arc::new(object))))
        .collect();
    sender.send_modify(|seen| {
        *seen = Seen { objects: Some(Arc::new(objects)), last_contact: Some(asked), problem: None };
    });
    version
        .filter(|version| !version.is_empty())
        .map(Some)
        .ok_or_else(|| Failure::new("a list without a version", None))
}

async fn follow<K: Object>(
    api: &Api<K>,
    selection: &Selection,
    period: Duration,
    mut version: String,
    sender: &watch::Sender<Seen<K>>,
) -> Result<Option<String>, Failure> {
    let params = WatchParams::default().timeout(u32::try_from(period.as_secs()).unwrap_or(u32::MAX).max(1));
    let params = match selection {
        Selection::Name(name) => params.fields(&format!("metadata.name={name}")),
        Selection::Labels(labels) => params.labels(labels),
    };
    let limit = period + GRACE;
    let stream = bounded("watch", limit, api.watch(&params, &version))
        .await
        .map_err(|error| Failure::new(&error.told(), Some(version.clone())))?;
    contact(sender);
    let mut stream = stream.into_stream().boxed();
    loop {
        let event = match tokio::time::timeout(limit, stream.next()).await {
            Err(_) => return Err(Failure::new("the watch fell silent", Some(version))),
            Ok(None) => return Ok(Some(version)),
            Ok(Some(Err(error))) => {
                // 410: the version is too old to resume from.
                let gone = matches!(&error, kube::Error::Api(status) if status.code == 410);
                return Err(Failure::new(&error, (!gone).then_some(version)));
            }
            Ok(Some(Ok(event))) => event,
        };
        let (object, present) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
            WatchEvent::Deleted(object) => (object, false),
            WatchEvent::Bookmark(bookmark) => {
                version = bookmark.metadata.resource_version;
                contact(sender);
                continue;
            }
            WatchEvent::Error(status) => {
                let resume = (status.code != 410).then_some(version);
                return Err(Failure::new(&status.message, resume));
            }
        };
        if let Some(newer) = &object.meta().resource_version {
            version.clone_from(newer);
        }
        let Some(name) = object.meta().name.clone() else { continue };
        sender.send_modify(|seen| {
            let objects = Arc::make_mut(seen.objects.get_or_insert_default());
            if present {
                objects.insert(name, Arc::new(object));
            } else {
                objects.remove(&name);
            }
            seen.last_contact = Some(boottime());
            seen.problem = None;
        });
    }
}

/// A sign of life without news: wakes nobody unless a problem is over.
fn contact<K>(sender: &watch::Sender<Seen<K>>) {
    sender.send_if_modified(|seen| {
        seen.last_contact = Some(boottime());
        seen.problem.take().is_some()
    });
}

#[cfg(test)]
mod tests {
    use super::{Lookup, Selection, Watch};
    use crate::mock::{Answer, Asked, api_server};
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn map(version: u32, value: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": value},
               "metadata": {"name": "pg", "namespace": "shop", "uid": "u", "resourceVersion": version.to_string()}})
    }

    fn list(version: u32, items: &[Value]) -> Answer {
        Answer::Json(
            200,
            json!({"apiVersion": "v1", "kind": "ConfigMapList",
            "metadata": {"resourceVersion": version.to_string()}, "items": items}),
        )
    }

    fn events(events: &[(&str, Value)]) -> Answer {
        let lines =
            events.iter().map(|(kind, object)| json!({"type": kind, "object": object}).to_string() + "\n");
        Answer::Text(200, lines.collect())
    }

    fn watched(asked: &Asked) -> bool {
        asked.query.contains("watch=true")
    }

    async fn until(watch: &Watch<ConfigMap>, wanted: impl Fn(&Lookup<ConfigMap>) -> bool) {
        let mut seen = watch.subscribe();
        let found = seen.wait_for(|seen| wanted(&seen.lookup("pg")));
        tokio::time::timeout(Duration::from_secs(60), found).await.unwrap().unwrap();
    }

    fn says(value: &'static str) -> impl Fn(&Lookup<ConfigMap>) -> bool {
        move |lookup| matches!(lookup, Lookup::Known(map) if map.data.as_ref().unwrap()["k"] == value)
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_lists_follows_and_resumes_by_name() {
        let (client, log) = api_server(|asked| {
            if !watched(asked) {
                list(1, &[map(1, "a")])
            } else if asked.query.contains("resourceVersion=1") {
                events(&[("MODIFIED", map(2, "b"))])
            } else if asked.query.contains("resourceVersion=2") {
                events(&[("DELETED", map(3, "b"))])
            } else {
                Answer::Silence
            }
        });
        let watch = Watch::<ConfigMap>::named(client, "shop", "pg");
        assert_eq!(watch.seen().lookup("pg"), Lookup::Unknown);
        until(&watch, says("b")).await;
        until(&watch, |lookup| *lookup == Lookup::Missing).await;
        assert!(watch.seen().last_contact.is_some());
        let asked = log.lock().unwrap();
        assert!(asked.iter().all(|asked| asked.query.contains("fieldSelector=metadata.name%3Dpg")), "K17");
        assert_eq!(
            asked.iter().filter(|asked| !watched(asked)).count(),
            1,
            "a clean end does not list again"
        );
    }

    /// Errors are a problem, never an absence.
    #[tokio::test(start_paused = true)]
    async fn errors_keep_the_last_state_and_say_what_is_wrong() {
        let (client, _) = api_server(|asked| {
            if watched(asked) { Answer::status(403, "Forbidden") } else { list(1, &[map(1, "a")]) }
        });
        let watch = Watch::<ConfigMap>::named(client, "shop", "pg");
        let mut seen = watch.subscribe();
        seen.wait_for(|seen| seen.problem.is_some()).await.unwrap();
        assert!(says("a")(&watch.seen().lookup("pg")));
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_version_lists_again() {
        let (client, _) = api_server(|asked| {
            if !watched(asked) {
                let newer = asked.query.contains("limit");
                assert!(!newer);
                return list(5, &[map(5, "new")]);
            }
            events(&[(
                "ERROR",
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "code": 410, "reason": "Expired", "message": "too old"}),
            )])
        });
        let watch = Watch::<ConfigMap>::start(
            client,
            "shop",
            Selection::Labels("a=b".into()),
            Duration::from_secs(5),
        );
        assert!(watch.first(Duration::from_secs(5)).await.is_some());
        until(&watch, says("new")).await;
    }

    /// A server that is never heard leaves everything unknown.
    #[tokio::test(start_paused = true)]
    async fn silence_is_unknown() {
        let (client, _) = api_server(|_| Answer::Silence);
        let watch = Watch::<ConfigMap>::named(client, "shop", "pg");
        assert!(watch.first(Duration::from_secs(120)).await.is_none());
        assert_eq!(watch.seen().lookup("pg"), Lookup::Unknown);
        assert!(watch.seen().problem.is_some());
    }
}
