//! Leader election for processes that are all alike: the driver of [`ha::election`] over a Lease.
//!
//! It decides nothing: it asks what the pure state machine wants asked, within a bound per call, and tells
//! who leads until when by `CLOCK_BOOTTIME`. It must never say `Leading` beyond the deadline that counts from
//! the start of the last request that surely succeeded.
//!
//! The Lease is best made empty beforehand (the chart does): a missing one is waited for as long as a
//! silent holder is, since whoever held it may still act.

use crate::{
    apply::FieldManager,
    call::{CallError, Calls, ErrorClass},
    clock::boottime,
};
use ha::{
    Instant, Version,
    election::{Answer, Candidate, Lease as Seen, Next, Request, Settings},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::api::PostParams;
use std::{future::Future, time::Duration};
use tokio::sync::watch;

/// Shortest wait between two looks at the state machine: a guard against spinning, no rule of the protocol.
const BREATH: Duration = Duration::from_millis(50);

/// Whether this process may act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// It may not. The holder seen last, for people.
    Standby {
        /// Its identity; `None` when nobody holds the Lease, or nothing was read yet.
        holder: Option<String>,
    },
    /// It may, until then by this machine's boot-time clock, unless told otherwise before.
    Leading {
        /// The deadline, moved on by each renewal.
        until: Instant,
        /// How often the Lease changed hands.
        term: u64,
    },
}

impl Leadership {
    /// Whether this process may act now. To be asked right before each act.
    pub fn leads(&self) -> bool {
        matches!(self, Self::Leading { until, .. } if boottime() < *until)
    }
}

/// One process's part in an election.
#[derive(Debug)]
pub struct Election {
    calls: Calls,
    namespace: String,
    name: String,
    candidate: Candidate,
    settings: Settings,
    /// The Lease as it was read last, whose other metadata a replacement keeps.
    lease: Option<Lease>,
}

impl Election {
    /// Takes part in the election over the Lease `name`. `identity` must be unique to this start of the
    /// process, such as the pod's name with a random suffix. `calls`' bound must be the one that `settings`
    /// were made for (2 s for [`Settings::DEFAULT`]).
    pub fn new(
        calls: Calls,
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
        settings: Settings,
    ) -> Self {
        let candidate = Candidate::new(identity, settings);
        Self { calls, namespace: namespace.into(), name: name.into(), candidate, settings, lease: None }
    }

    /// Runs until `stop` is ready, telling every change through `tell`; then releases the Lease when it is
    /// held. Whoever acts must have ended its work before it makes `stop` ready, and must stop by itself
    /// when `Standby` is told or the deadline passes.
    pub async fn run(mut self, tell: watch::Sender<Leadership>, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            self.publish(&tell);
            let turn = async {
                match self.candidate.next(boottime()) {
                    Next::Ask(request) => self.ask(&request).await,
                    Next::Wait(until) => {
                        let now = boottime();
                        let wake = self
                            .candidate
                            .acts_until()
                            .map_or(until, |acts| if acts > now { acts.min(until) } else { until });
                        tokio::time::sleep(wake.since(now).max(BREATH)).await;
                    }
                }
            };
            tokio::select! {
                () = turn => {}
                () = &mut stop => break,
            }
        }
        if let Some(request) = self.candidate.release() {
            self.publish(&tell);
            self.ask(&request).await;
            tracing::info!(lease = %self.name, "leadership released");
        }
    }

    fn publish(&self, tell: &watch::Sender<Leadership>) {
        let leadership = match self.candidate.acts_until() {
            Some(until) if boottime() < until => Leadership::Leading { until, term: self.candidate.term() },
            _ => Leadership::Standby { holder: self.candidate.holder().map(ToOwned::to_owned) },
        };
        tell.send_if_modified(|told| {
            let changed = *told != leadership;
            let turned = matches!(told, Leadership::Leading { .. })
                != matches!(leadership, Leadership::Leading { .. });
            if turned {
                tracing::info!(lease = %self.name, leadership = ?leadership, "leadership changed");
            }
            *told = leadership;
            changed
        });
    }

    async fn ask(&mut self, request: &Request) {
        let started = boottime();
        let answer = match request {
            Request::Read => self.read().await,
            Request::Create => self.write(None, Some(1)).await,
            Request::Write { on, holder, term } => {
                self.write(Some(on), holder.is_some().then_some(*term)).await
            }
        };
        let answer = answer.unwrap_or_else(|error| match error.class() {
            ErrorClass::NotFound => Answer::Missing,
            ErrorClass::Conflict | ErrorClass::AlreadyExists => Answer::Lost,
            _ => {
                tracing::warn!(lease = %self.name, error = %error.told(), "leader election: no answer");
                Answer::Unknown
            }
        });
        self.candidate.answered(request, started, answer, boottime());
    }

    async fn read(&mut self) -> Result<Answer, CallError> {
        let Some(lease) = self.calls.get::<Lease>(&self.namespace, &self.name).await? else {
            return Ok(Answer::Missing);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let seen = Seen {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            version: version(&lease),
            term: spec.lease_transitions.and_then(|term| u64::try_from(term).ok()).unwrap_or(0),
        };
        self.lease = Some(lease);
        Ok(Answer::Found(seen))
    }

    /// Creates (`on` none) or replaces; `term` none releases.
    async fn write(&mut self, on: Option<&Version>, term: Option<u64>) -> Result<Answer, CallError> {
        let known = self.lease.as_ref();
        let mut metadata = match (on, known) {
            (Some(on), Some(known)) if version(known) == *on => known.metadata.clone(),
            // Not the object that the decision was made on: read again.
            (Some(_), _) => return Ok(Answer::Lost),
            (None, _) => ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
        };
        metadata.managed_fields = None;
        let now = MicroTime(Timestamp::now());
        let before = known.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let me = self.candidate.identity().to_owned();
        let again = before.holder_identity.as_deref() == Some(me.as_str());
        let spec = LeaseSpec {
            holder_identity: term.map(|_| me),
            lease_transitions: term.and_then(|term| i32::try_from(term).ok()).or(before.lease_transitions),
            lease_duration_seconds: i32::try_from(self.settings.takeover().as_secs()).ok().map(|s| s.max(1)),
            acquire_time: before.acquire_time.filter(|_| again).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        let lease = Lease { metadata, spec: Some(spec) };
        let params = PostParams {
            field_manager: Some(FieldManager::ELECTION.as_str().to_owned()),
            ..PostParams::default()
        };
        let api = self.calls.api::<Lease>(&self.namespace);
        let written = if on.is_some() {
            self.calls.run("replace lease", api.replace(&self.name, &params, &lease)).await?
        } else {
            self.calls.run("create lease", api.create(&params, &lease)).await?
        };
        let answer = Answer::Written(version(&written));
        self.lease = Some(written);
        Ok(answer)
    }
}

fn version(lease: &Lease) -> Version {
    Version(lease.metadata.resource_version.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{Election, Leadership};
    use crate::{
        Calls,
        mock::{Answer, Store, api_server},
    };
    use ha::election::Settings;
    use serde_json::json;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };
    use tokio::sync::{oneshot, watch};

    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/operator";

    struct Running {
        leadership: watch::Receiver<Leadership>,
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    fn times() -> Settings {
        let ms = Duration::from_millis;
        Settings::new(ms(1500), ms(1000), ms(100), ms(100)).unwrap()
    }

    fn runs(store: &Store, identity: &str, cut: &Arc<AtomicBool>) -> Running {
        let (store, cut) = (store.clone(), cut.clone());
        let (client, _) =
            api_server(
                move |asked| {
                    if cut.load(Ordering::Relaxed) { Answer::Silence } else { store.answer(asked) }
                },
            );
        let calls = Calls::new(client, Duration::from_millis(100));
        let (tell, leadership) = watch::channel(Leadership::Standby { holder: None });
        let (stop, stopped) = oneshot::channel::<()>();
        let election = Election::new(calls, "shop", "operator", identity, times());
        let task = tokio::spawn(election.run(tell, async {
            let _ = stopped.await;
        }));
        Running { leadership, stop, task }
    }

    fn store() -> Store {
        let store = Store::default();
        store.put(
            PATH,
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "operator", "namespace": "shop", "labels": {"from": "chart"}}}),
        );
        store
    }

    async fn leads(running: &mut Running) -> bool {
        let wait = running.leadership.wait_for(Leadership::leads);
        tokio::time::timeout(Duration::from_secs(5), wait).await.is_ok_and(|waited| waited.is_ok())
    }

    #[tokio::test]
    async fn one_leads_and_a_release_hands_over_at_once() {
        let (store, up) = (store(), Arc::new(AtomicBool::new(false)));
        let mut one = runs(&store, "one", &up);
        assert!(leads(&mut one).await);
        let mut two = runs(&store, "two", &up);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!two.leadership.borrow().leads());
        one.stop.send(()).unwrap();
        one.task.await.unwrap();
        let released = std::time::Instant::now();
        assert!(leads(&mut two).await);
        assert!(released.elapsed() < Duration::from_secs(1));
        let lease = store.object(PATH).unwrap();
        assert_eq!(
            (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]),
            (&"two".into(), &2.into())
        );
        assert_eq!(lease["metadata"]["labels"]["from"], "chart");
        drop(two.stop);
    }

    #[tokio::test]
    async fn a_leader_that_is_cut_off_stops_before_another_starts() {
        let (store, cut, up) = (store(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut one = runs(&store, "one", &cut);
        assert!(leads(&mut one).await);
        let mut two = runs(&store, "two", &up);
        tokio::time::sleep(Duration::from_millis(200)).await;
        cut.store(true, Ordering::Relaxed);
        assert!(leads(&mut two).await);
        assert!(!one.leadership.borrow().leads());
        assert!(matches!(*one.leadership.borrow(), Leadership::Standby { .. }), "told, not only expired");
    }
}
