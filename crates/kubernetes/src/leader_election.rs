//! Leader election for processes that are all alike: the driver of [`ha::election`] over a Lease.
//!
//! It decides nothing: it asks what the pure state machine wants asked, within a bound per call, hands it what a watch of
//! the Lease shows, and tells who leads until when by `CLOCK_BOOTTIME`. It must never say `Leading` beyond the deadline
//! that counts from before the last request that surely succeeded, nor release the Lease while work under it goes on
//! (`tests::the_lease_is_released_only_after_the_work_ended`).
//!
//! The Lease is best made beforehand, empty: candidates wait for a missing one, and for one that nobody ever held, as long
//! as for a silent holder, since whoever held the one before may still act.

mod label;
mod lease;

use crate::{
    apply::FieldManager,
    call::{CallError, Calls, ErrorClass},
    clock::boottime,
    watch::{Lookup, Selection, Watch},
};
use ha::{
    Instant,
    election::{Answer, Candidacy, Candidate, Next, NotInOffice, Request},
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Client, api::PostParams};
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot, watch};

pub use label::label_pod;
pub use lease::ELECTION_ANNOTATION;

/// Shortest wait between two looks at the state machine: a guard against spinning, no rule of the protocol.
const BREATH: Duration = Duration::from_millis(5);
/// Length of one watch, at least and at most: also how long a dead connection can go unnoticed.
const WATCH: (Duration, Duration) = (Duration::from_secs(2), crate::watch::PERIOD);

/// Whether this process may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leadership {
    /// It may not.
    Standby,
    /// It may, until then by this machine's boot-time clock, unless told otherwise before.
    Leading {
        /// The deadline, moved on by each renewal.
        until: Instant,
        /// The epoch: above that of every term before.
        epoch: u64,
    },
    /// It must end its work now, and has until then to do so.
    Ending {
        /// The deadline.
        until: Instant,
        /// The epoch.
        epoch: u64,
    },
}

impl Leadership {
    /// Whether this process may act at `now`. To be asked right before each act.
    pub fn leads_at(&self, now: Instant) -> bool {
        matches!(self, Self::Leading { until, .. } if now < *until)
    }

    /// Whether this process may act now.
    pub fn leads(&self) -> bool {
        self.leads_at(boottime())
    }
}

/// What this process knows of the election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Whether it may act.
    pub leadership: Leadership,
    /// The holder that was seen last: identity and name.
    pub holder: Option<(String, String)>,
    /// The epoch that was seen last.
    pub epoch: Option<u64>,
    /// From when on that holder counts as gone, unless it renews.
    pub expires: Option<Instant>,
    /// When all this was surely current; `None`: never.
    pub confirmed: Option<Instant>,
    /// The record's TTL.
    pub ttl: Option<Duration>,
    /// Who stands for election, by identity.
    pub candidates: BTreeMap<String, Candidacy>,
    /// What went wrong last and has not gone well since.
    pub problem: Option<Problem>,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What the failure proves.
    pub class: ErrorClass,
    /// What was tried, in RBAC's verbs.
    pub verb: &'static str,
    /// The API server's words, or what happened instead of an answer.
    pub told: Arc<str>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            leadership: Leadership::Standby,
            holder: None,
            epoch: None,
            expires: None,
            confirmed: None,
            ttl: None,
            candidates: BTreeMap::new(),
            problem: None,
        }
    }
}

impl View {
    /// Who leads at `now`, by name, as far as anybody can tell: nobody when its time is over.
    pub fn leader(&self, now: Instant) -> Option<&str> {
        let (_, name) = self.holder.as_ref()?;
        self.expires.is_some_and(|expires| now < expires).then_some(name)
    }

    /// How old all this may be at `now`.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.confirmed.map(|confirmed| now.since(confirmed))
    }
}

/// What is asked of a running election.
#[derive(Debug)]
pub enum Order {
    /// Step down, in favour of a candidate of this name or of the best one.
    StepDown {
        /// A name or an identity.
        to: Option<String>,
        /// Told once the Lease is released, or why not.
        answer: oneshot::Sender<Result<(), NotInOffice>>,
    },
}

/// What an election talks to besides the API server.
#[derive(Debug)]
pub struct Ends {
    /// Told every change.
    pub tell: watch::Sender<View>,
    /// Orders.
    pub orders: mpsc::Receiver<Order>,
    /// How many works are under way that must end before the Lease is released.
    pub works: watch::Receiver<usize>,
}

/// One process's part in an election.
#[derive(Debug)]
pub struct Election {
    calls: Calls,
    namespace: String,
    name: String,
    candidate: Candidate,
    watch: Watch<Lease>,
    /// The Lease as the candidate knows it, whose other metadata a replacement keeps.
    lease: Option<Lease>,
    problem: Option<Problem>,
    ending: bool,
}

impl Election {
    /// Takes part in the election over the Lease `name`. The candidate's identity must be unique to this start of the
    /// process. `watches` must have no read timeout ([`crate::client::Clients::watches`]); `calls` are bounded by the
    /// candidate's times.
    pub fn new(
        calls: &Calls,
        watches: Client,
        namespace: impl Into<String>,
        name: impl Into<String>,
        candidate: Candidate,
    ) -> Self {
        let (namespace, name) = (namespace.into(), name.into());
        let times = candidate.times();
        let period = times.ttl().clamp(WATCH.0, WATCH.1);
        let watch = Watch::start(watches, &namespace, Selection::Name(name.clone()), period);
        Self {
            calls: calls.within(times.call()),
            namespace,
            name,
            candidate,
            watch,
            lease: None,
            problem: None,
            ending: false,
        }
    }

    /// Runs until `stop` is ready, telling every change; then waits for the work to end, within its deadline, and
    /// releases the Lease.
    pub async fn run(mut self, mut ends: Ends, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut seen = self.watch.subscribe();
        loop {
            self.publish(&ends.tell);
            let until = match self.candidate.next(boottime()) {
                Next::Ask(request) => {
                    self.ask(&request).await;
                    continue;
                }
                Next::Wait(until) => until,
            };
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(order) = ends.orders.recv() => self.obey(order, &mut ends).await,
                Ok(()) = seen.changed() => self.observe(),
                () = self.sleep(until) => {}
            }
        }
        self.end_work(&mut ends).await;
        let led = self.candidate.holds();
        let last = self.candidate.release(boottime()).or_else(|| self.candidate.withdraw());
        self.publish(&ends.tell);
        if let Some(request) = last {
            self.ask(&request).await;
        }
        // Once more if its answer was lost or somebody entered a name meanwhile.
        let last = boottime().after(self.candidate.times().call() * 2);
        while self.candidate.holds() && boottime() < last {
            match self.candidate.next(boottime()) {
                Next::Ask(request) => self.ask(&request).await,
                Next::Wait(until) => tokio::time::sleep(until.min(last).since(boottime()).max(BREATH)).await,
            }
        }
        if led {
            tracing::info!(lease = %self.name, released = !self.candidate.holds(), "left");
        }
    }

    async fn sleep(&self, until: Instant) {
        let now = boottime();
        let wake =
            self.candidate.acts_until().filter(|acts| *acts > now).map_or(until, |acts| acts.min(until));
        tokio::time::sleep(wake.since(now).max(BREATH)).await;
    }

    /// Tells that the work must end, and waits for it; the Lease is kept meanwhile, for one more TTL at most.
    async fn end_work(&mut self, ends: &mut Ends) {
        self.ending = true;
        self.publish(&ends.tell);
        let renews_until = boottime().after(self.candidate.times().ttl());
        while *ends.works.borrow_and_update() > 0 {
            let now = boottime();
            if !self.candidate.leads(now) {
                break;
            }
            match self.candidate.next(now) {
                Next::Ask(request) if now < renews_until => self.ask(&request).await,
                next => {
                    let until = if let Next::Wait(until) = next { until } else { now.after(BREATH * 10) };
                    tokio::select! {
                        changed = ends.works.changed() => if changed.is_err() { break },
                        () = self.sleep(until) => {}
                    }
                }
            }
            self.publish(&ends.tell);
        }
    }

    async fn obey(&mut self, order: Order, ends: &mut Ends) {
        let Order::StepDown { to, answer } = order;
        let refused = if self.candidate.leads(boottime()) {
            self.candidate.successor_called(to.as_deref()).err()
        } else {
            Some(NotInOffice::NotLeading)
        };
        let outcome = if let Some(refused) = refused {
            Err(refused)
        } else {
            self.end_work(ends).await;
            self.ending = false;
            match self.candidate.step_down(to.as_deref(), boottime()) {
                Ok(request) => {
                    self.publish(&ends.tell);
                    self.ask(&request).await;
                    tracing::info!(lease = %self.name, ?to, "stepped down");
                    Ok(())
                }
                Err(error) => Err(error),
            }
        };
        // Whoever asked may be gone.
        let _ = answer.send(outcome);
    }

    fn publish(&self, tell: &watch::Sender<View>) {
        let now = boottime();
        let leadership = match self.candidate.acts_until().filter(|_| self.candidate.leads(now)) {
            Some(until) if self.ending => Leadership::Ending { until, epoch: self.candidate.epoch() },
            Some(until) => Leadership::Leading { until, epoch: self.candidate.epoch() },
            None => Leadership::Standby,
        };
        let seen = self.candidate.seen();
        let content = seen.map(|seen| &seen.record.content);
        let holder = seen.and_then(|seen| {
            Some((seen.record.content.holder.clone()?, seen.record.holder_name()?.to_owned()))
        });
        let mut candidates = content.map(|content| content.candidates.clone()).unwrap_or_default();
        candidates.retain(|_, candidacy| candidacy.priority > 0);
        let view = View {
            leadership,
            holder,
            epoch: content.and_then(|content| content.epoch),
            expires: seen.and_then(|seen| seen.expires),
            confirmed: self.candidate.confirmed(),
            ttl: content.and_then(|content| content.ttl),
            candidates,
            problem: self.problem.clone(),
        };
        tell.send_if_modified(|told| {
            let leads = |view: &View| matches!(view.leadership, Leadership::Leading { .. });
            if leads(told) != leads(&view) {
                tracing::info!(lease = %self.name, leadership = ?view.leadership, "leadership changed");
            }
            let changed = *told != view;
            *told = view;
            changed
        });
    }

    /// Hands the newest state of the watch on.
    fn observe(&mut self) {
        let seen = self.watch.seen();
        match seen.lookup(&self.name) {
            Lookup::Known(lease) => {
                let record = lease::record(&lease);
                let version = record.version.clone();
                self.candidate.observed(record, boottime());
                if self.candidate.seen().is_some_and(|seen| seen.record.version == version) {
                    self.lease = Some(Arc::unwrap_or_clone(lease));
                    self.problem = None;
                }
            }
            Lookup::Missing => self.candidate.vanished(),
            Lookup::Unknown => {}
        }
        if let Some(told) = seen.problem
            && self.problem.is_none()
        {
            tracing::warn!(lease = %self.name, problem = %told, "the Lease cannot be watched; it is read now and then instead");
        }
    }

    async fn ask(&mut self, request: &Request) {
        let started = boottime();
        let (verb, asked) = match request {
            Request::Read => ("get", self.read().await),
            Request::Create(content) => {
                let lease = lease::build(None, &self.namespace, &self.name, content);
                ("create", self.create(&lease).await)
            }
            Request::Replace { on, content } => {
                // Not the object that the decision was made on: it is read again.
                let known = self.lease.as_ref().filter(|lease| lease::version(lease) == *on);
                let built =
                    known.map(|known| lease::build(Some(known), &self.namespace, &self.name, content));
                match built {
                    Some(lease) => ("update", self.replace(&lease).await),
                    None => ("update", Ok(Answer::Lost)),
                }
            }
        };
        let answer = match asked {
            Ok(answer) => {
                self.problem = None;
                answer
            }
            Err(error) => self.failed(verb, &error),
        };
        self.candidate.answered(request, started, answer, boottime());
    }

    fn failed(&mut self, verb: &'static str, error: &CallError) -> Answer {
        let class = error.class();
        let answer = match class {
            ErrorClass::NotFound => Answer::Missing,
            ErrorClass::Conflict | ErrorClass::AlreadyExists => return Answer::Lost,
            _ => Answer::Unknown,
        };
        if class == ErrorClass::NotFound && verb != "create" {
            return answer;
        }
        let problem = Problem { class, verb, told: error.told().into() };
        if self.problem.as_ref() != Some(&problem) {
            tracing::warn!(lease = %self.name, namespace = %self.namespace, verb, error = %problem.told, "no answer that helps");
        }
        self.problem = Some(problem);
        answer
    }

    async fn read(&mut self) -> Result<Answer, CallError> {
        let Some(lease) = self.calls.get::<Lease>(&self.namespace, &self.name).await? else {
            return Ok(Answer::Missing);
        };
        let record = lease::record(&lease);
        self.lease = Some(lease);
        Ok(Answer::Found(record))
    }

    async fn create(&mut self, lease: &Lease) -> Result<Answer, CallError> {
        let api = self.calls.api::<Lease>(&self.namespace);
        let written = self.calls.run("create lease", api.create(&params(), lease)).await?;
        Ok(self.written(written))
    }

    /// PUT on the very version that the decision was made on.
    async fn replace(&mut self, lease: &Lease) -> Result<Answer, CallError> {
        let api = self.calls.api::<Lease>(&self.namespace);
        let written = self.calls.run("replace lease", api.replace(&self.name, &params(), lease)).await?;
        Ok(self.written(written))
    }

    fn written(&mut self, lease: Lease) -> Answer {
        let answer = Answer::Written(lease::version(&lease));
        self.lease = Some(lease);
        answer
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FieldManager::ELECTION.as_str().to_owned()), ..PostParams::default() }
}

#[cfg(test)]
mod tests;
