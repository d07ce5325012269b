//! Where clients are led, and what people see: slices, labels, status (§4 step 8, K1–K4, K18, K19).
//!
//! Decides the order: `pgwrite` first, then `pgread`, then labels, then status; what failed is tried again, what is
//! right already is not written. Must never write anything but a retraction unless this very boot leads, and every
//! slice is guarded by the epoch (S5). One call at a time, beside the acts on Postgres and never in their way.

mod desired;
mod readers;
mod status;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ha::{Boot, Decision, Epoch, Instant, MemberName, View};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubernetes::labels::{Role, set_role};
use kubernetes::pods::PodFacts;
use kubernetes::slices::{Family, Published, SliceState, Slices, Target};
use kubernetes::watch::{Lookup, Watch};
use kubernetes::{Calls, FieldManager};
use tokio::task::JoinHandle;

use super::failover::Failovers;
use crate::config::Config;
use crate::peers::Notes;
use desired::{Desired, Leading};
use readers::Readers;

/// Pause after a call that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a watch of pods may lag behind a label that was written.
const LABEL_LAG: Duration = Duration::from_secs(2);

/// The leader's writes beside the record.
pub(crate) struct Routes {
    calls: Calls,
    slices: Slices,
    watches: kube::Client,
    place: Place,
    write: Option<(String, Watch<EndpointSlice>)>,
    running: Option<JoinHandle<Done>>,
    not_before: Instant,
    readers: Readers,
    done: Finished,
    failovers: Failovers,
    before: Before,
    /// What each member should be told of, this one included.
    notes: BTreeMap<MemberName, Notes>,
}

/// Who and where we are.
#[derive(Debug, Clone)]
struct Place {
    cluster: String,
    namespace: String,
    pod: String,
    pod_uid: String,
    address: IpAddr,
    node: String,
    boot: Boot,
}

/// What has been written in this term.
#[derive(Debug, Default)]
struct Finished {
    epoch: Epoch,
    write: bool,
    labels: BTreeMap<String, (String, Role, Instant)>,
    status: Option<api::PostgresClusterStatus>,
}

/// What the status said of the last change of master before this member led.
#[derive(Debug, Default)]
enum Before {
    #[default]
    Unread,
    Read(Option<api::LastFailover>),
}

/// A call that ended.
#[derive(Debug)]
pub(crate) enum Done {
    /// `pgwrite` points here.
    Write(Epoch, anyhow::Result<()>),
    /// The slices point nowhere.
    Retracted(anyhow::Result<()>),
    /// `pgread` leads to these.
    Readers(Epoch, Vec<Target>, anyhow::Result<()>),
    /// A pod carries its label.
    Label(Epoch, String, String, Role, anyhow::Result<()>),
    /// What the status says of the last change of master.
    Before(anyhow::Result<Option<api::LastFailover>>),
    /// The status says so.
    Status(Epoch, Box<api::PostgresClusterStatus>, anyhow::Result<()>),
}

impl Routes {
    /// Knows nothing yet.
    pub(crate) fn new(config: &Config, boot: Boot, calls: Calls, watches: kube::Client) -> Self {
        let slices = Slices::new(calls.clone(), FieldManager::AGENT);
        let place = Place {
            cluster: config.cluster.clone(),
            namespace: config.namespace.clone(),
            pod: config.pod_name.clone(),
            pod_uid: config.pod_uid.clone(),
            address: config.pod_ip,
            node: config.node_name.clone(),
            boot,
        };
        let never = Instant::default();
        Self {
            calls,
            slices,
            watches,
            place,
            write: None,
            running: None,
            not_before: never,
            readers: Readers::default(),
            done: Finished::default(),
            failovers: Failovers::default(),
            before: Before::default(),
            notes: BTreeMap::new(),
        }
    }

    /// Follows who leads, for the status of a later leader.
    pub(crate) fn observe(&mut self, view: &View, decision: &Decision, now: Instant) {
        self.failovers.observe(view, decision, now, Time(jiff::Timestamp::now()));
        if let ha::RecordView::Known { record, .. } = &view.record
            && !record.names(&view.member)
        {
            self.before = Before::Unread;
        }
    }

    /// What this member and the others found that people should know.
    pub(crate) fn noted(&mut self, own: &MemberName, notes: Notes, mut others: BTreeMap<MemberName, Notes>) {
        others.insert(own.clone(), notes);
        self.notes = others;
    }

    /// Watches the slice of this Service in place of any other.
    pub(crate) fn watch(&mut self, service: &str) {
        let name = kubernetes::slices::slice_name(service, Family::of(&self.place.address));
        if self.write.as_ref().is_none_or(|(watched, _)| *watched != name) {
            let watch = Watch::named(self.watches.clone(), &self.place.namespace, &name);
            self.write = Some((name, watch));
        }
    }

    /// Where `pgwrite` points, by the watch or by our own last write, whichever is known to be newer.
    pub(crate) fn route(&self) -> ha::Route {
        let Some((name, watch)) = &self.write else { return ha::Route::Unknown };
        match watch.seen().lookup(name) {
            Lookup::Unknown => ha::Route::Unknown,
            Lookup::Missing => ha::Route::Elsewhere,
            Lookup::Known(slice) => {
                let state = SliceState::of(slice.as_ref().clone());
                let here = state.points_only_at(&self.place.pod_uid, &[self.place.address])
                    && state.boot == Some(self.place.boot);
                match state.epoch {
                    Some(epoch) if here => ha::Route::Here { epoch },
                    _ => ha::Route::Elsewhere,
                }
            }
        }
    }

    /// Whether `pgwrite` points at this pod, written in whatever life of it; none before it was read.
    pub(crate) fn points_here(&self) -> Option<bool> {
        let (name, watch) = self.write.as_ref()?;
        match watch.seen().lookup(name) {
            Lookup::Unknown => None,
            Lookup::Missing => Some(false),
            Lookup::Known(slice) => {
                let state = SliceState::of(slice.as_ref().clone());
                Some(state.points_only_at(&self.place.pod_uid, &[self.place.address]))
            }
        }
    }

    /// Starts the most important call that is due, if none runs.
    pub(crate) fn turn(
        &mut self,
        view: &View,
        said: &ha::Announcement,
        actions: &[ha::Action],
        wanted: &api::MemberSettings,
        pods: &BTreeMap<String, PodFacts>,
        now: Instant,
    ) {
        if self.running.is_some() || now < self.not_before {
            return;
        }
        let routes = desired::routes(wanted, &self.place.cluster, &self.place.namespace);
        for action in actions {
            match action {
                ha::Action::Retract => {
                    let (slices, place) = (self.slices.clone(), self.place.clone());
                    let epoch = desired::known_epoch(view);
                    self.done = Finished::default();
                    self.running = Some(tokio::spawn(async move {
                        Done::Retracted(retract(&slices, &routes, &place, epoch).await)
                    }));
                    return;
                }
                ha::Action::Publish { epoch } => {
                    let (slices, place, epoch) = (self.slices.clone(), self.place.clone(), *epoch);
                    self.running = Some(tokio::spawn(async move {
                        let targets = [place.target()];
                        let written =
                            publish(&slices, &routes.write, &routes.families, epoch, place.boot, &targets);
                        Done::Write(epoch, written.await)
                    }));
                    return;
                }
                _ => {}
            }
        }
        if let Some(leading) = Leading::of(view) {
            self.lead(&leading, (view, said), wanted, pods, routes, now);
        }
    }

    /// What a leader whose `pgwrite` is right still has to say.
    fn lead(
        &mut self,
        leading: &Leading<'_>,
        (view, said): (&View, &ha::Announcement),
        wanted: &api::MemberSettings,
        pods: &BTreeMap<String, PodFacts>,
        routes: Desired,
        now: Instant,
    ) {
        let epoch = leading.record.epoch;
        if self.done.epoch != epoch {
            self.done = Finished { epoch, ..Finished::default() };
        }
        let readers = desired::readers(leading, view, wanted, pods, &self.place.target(), now);
        self.readers.watch(&self.watches, &self.place.namespace, &routes.read.service, &self.place.address);
        if let Some(readers) = self.readers.due(epoch, readers, &self.place.address, now) {
            let (slices, boot) = (self.slices.clone(), self.place.boot);
            self.running = Some(tokio::spawn(async move {
                let written = publish(&slices, &routes.read, &routes.families, epoch, boot, &readers).await;
                Done::Readers(epoch, readers, written)
            }));
            return;
        }
        let label = pods.values().find_map(|pod| {
            let role = if pod.uid == self.place.pod_uid { Role::Master } else { Role::Replica };
            let said = pod.role == Some(role);
            let wrong = !said && !self.labelled(pod, role, now) && !pod.finished;
            wrong.then(|| (pod.name.clone(), pod.uid.clone(), role))
        });
        // The own label comes first: people look for the master.
        let own = pods
            .get(&self.place.pod)
            .filter(|pod| pod.uid == self.place.pod_uid && pod.role != Some(Role::Master))
            .filter(|pod| !self.labelled(pod, Role::Master, now))
            .map(|pod| (pod.name.clone(), pod.uid.clone(), Role::Master));
        if let Some((name, uid, role)) = own.or(label) {
            let (calls, namespace) = (self.calls.clone(), self.place.namespace.clone());
            self.running = Some(tokio::spawn(async move {
                let said = set_role(&calls, &namespace, &name, &uid, Some(role)).await;
                Done::Label(epoch, name, uid, role, said.map(drop).map_err(Into::into))
            }));
            return;
        }
        // What this agent did not see itself stays as it is: an apply without it would remove it.
        let last = match (self.failovers.last(), &self.before) {
            (Some(seen), _) => Some(seen.clone()),
            (None, Before::Read(before)) => before.clone(),
            (None, Before::Unread) => {
                let (calls, place) = (self.calls.clone(), self.place.clone());
                self.running = Some(tokio::spawn(async move {
                    Done::Before(status::last_failover(&calls, &place.namespace, &place.cluster).await)
                }));
                return;
            }
        };
        let status = status::of(leading, (view, said), &self.notes, wanted, pods, last);
        if self.done.status.as_ref() != Some(&status) {
            let (calls, place, uid) = (self.calls.clone(), self.place.clone(), wanted.cluster.uid.clone());
            self.running = Some(tokio::spawn(async move {
                let said = status::apply(&calls, &place.namespace, &place.cluster, &uid, &status).await;
                Done::Status(epoch, Box::new(status), said)
            }));
        }
    }

    /// Waits for the running call to end; for ever when there is none. May be dropped and called again.
    pub(crate) async fn ended(&mut self, clock: impl Fn() -> Instant) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let done = running.await;
        self.running = None;
        let (what, outcome) = match done {
            Ok(done) => self.take(done, clock()),
            Err(error) => ("call", Err(error.into())),
        };
        if let Err(error) = outcome {
            tracing::warn!(what, error = format!("{error:#}"), "could not tell Kubernetes");
            self.not_before = clock().after(PAUSE);
        }
    }

    fn take(&mut self, done: Done, now: Instant) -> (&'static str, anyhow::Result<()>) {
        match done {
            Done::Write(epoch, outcome) => {
                if outcome.is_ok() {
                    tracing::info!(%epoch, "pgwrite points here");
                    self.done.write = self.done.epoch == epoch;
                }
                ("pgwrite", outcome)
            }
            Done::Retracted(outcome) => ("retraction", outcome),
            Done::Readers(epoch, readers, outcome) => {
                if outcome.is_ok() {
                    self.readers.wrote(epoch, readers, now);
                }
                ("pgread", outcome)
            }
            Done::Label(epoch, name, uid, role, outcome) => {
                if outcome.is_ok() && self.done.epoch == epoch {
                    self.done.labels.insert(name, (uid, role, now));
                }
                ("label", outcome)
            }
            Done::Before(outcome) => {
                let outcome = outcome.map(|before| self.before = Before::Read(before));
                ("the last change of master", outcome)
            }
            Done::Status(epoch, status, outcome) => {
                if outcome.is_ok() && self.done.epoch == epoch {
                    self.done.status = Some(*status);
                }
                ("status", outcome)
            }
        }
    }

    /// Whether this pod was given this label so lately that the watch need not show it yet.
    fn labelled(&self, pod: &PodFacts, role: Role, now: Instant) -> bool {
        self.done
            .labels
            .get(&pod.name)
            .is_some_and(|(uid, given, at)| *uid == pod.uid && *given == role && now.since(*at) < LABEL_LAG)
    }

    /// Whether a call is under way.
    pub(crate) fn busy(&self) -> bool {
        self.running.is_some()
    }
}

impl Place {
    fn target(&self) -> Target {
        Target {
            pod: self.pod.clone(),
            uid: self.pod_uid.clone(),
            addresses: vec![self.address],
            node: self.node.clone(),
            zone: None,
        }
    }
}

async fn publish(
    slices: &Slices,
    route: &kubernetes::slices::Route,
    families: &[Family],
    epoch: Epoch,
    boot: Boot,
    targets: &[Target],
) -> anyhow::Result<()> {
    for family in families {
        if let Published::Superseded { by } = slices.publish(route, *family, epoch, boot, targets).await? {
            anyhow::bail!("{} was written by a later leader of epoch {by}", route.service);
        }
    }
    Ok(())
}

async fn retract(slices: &Slices, routes: &Desired, place: &Place, epoch: Epoch) -> anyhow::Result<()> {
    for family in &routes.families {
        let Some(there) = slices.read(&routes.write, *family).await? else { continue };
        // A successor's address is not ours to take away, whatever epoch it carries.
        if there.points_only_at(&place.pod_uid, &[place.address]) {
            slices.retract(&routes.write, *family, there.epoch.unwrap_or(epoch), place.boot).await?;
        }
    }
    Ok(())
}
