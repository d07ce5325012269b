//! Patroni as a system under fault: the same PostgreSQL, nodes, clients and faults as ours, deployed as its documentation
//! recommends for Kubernetes, with its recommended and with its fastest legal settings.
//!
//! It decides only what of Patroni's own account counts as a term and as whole. It must never help: no fault is mended
//! that the rig did not make, nothing is restarted, and the manifests choose, where they have a choice, what is better for
//! Patroni. Proved by `bench failover --peer patroni`, whose repetitions end only when all three members have said
//! themselves what Patroni says of them.

mod objects;
mod state;

use std::cell::RefCell;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hyper::http;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::system::{INSTANCES, System, View};
use crate::client::Client;
use crate::cluster::{Cluster, HEAL};
use crate::faults::{Fault, Victim};
use crate::wait;
use crate::world::World;
use state::{Serving, State};

/// Its name, which is also that of the Service for writers and of the lock.
const NAME: &str = "pg";
/// PGDATA, as in `patroni.yml`.
const PGDATA: &str = "/var/lib/postgresql/data/pgdata";
/// Patroni's REST API.
const PORT: u16 = 8008;
/// From asking for a switchover to Patroni's answer, which comes when it is done.
const SWITCHOVER: Duration = Duration::from_secs(60);

/// How Patroni is set.
pub(crate) trait Setting {
    /// What lines and tables call it.
    const PEER: &'static str;
    /// Its part of the dynamic configuration, as YAML.
    const TIMES: &'static str;
    /// Whether a dead postmaster is started again where it was, and a failover comes only when that fails.
    const RESTARTS_IN_PLACE: bool;
}

/// Patroni's defaults.
#[derive(Debug)]
pub(crate) struct Recommended;

/// The least that Patroni takes.
#[derive(Debug)]
pub(crate) struct Fastest;

impl Setting for Recommended {
    const PEER: &'static str = "patroni-recommended";
    const TIMES: &'static str = include_str!("../../peers/patroni/recommended.yml");
    const RESTARTS_IN_PLACE: bool = true;
}

impl Setting for Fastest {
    const PEER: &'static str = "patroni-fastest";
    const TIMES: &'static str = include_str!("../../peers/patroni/fastest.yml");
    const RESTARTS_IN_PLACE: bool = false;
}

/// One cluster of Patroni.
#[derive(Debug)]
pub(crate) struct Patroni<S> {
    cluster: Cluster,
    terms: RefCell<Terms>,
    setting: PhantomData<S>,
}

/// Counts who serves: Patroni's own number of transitions stays when the same name takes the lock again after its pod or
/// container was lost, and for clients that is a failover like any other.
#[derive(Debug, Default)]
struct Terms {
    count: u64,
    last: Option<Serving>,
    /// What the last one said of itself at the end: until it says something new, it is not known to serve.
    stale: String,
}

impl Terms {
    /// The term, and whether who serves in it has said so.
    fn count(&mut self, serving: Option<Serving>, running: bool, account: &str) -> (u64, bool) {
        let Some(serving) = serving else { return (self.count, false) };
        if self.last.as_ref() != Some(&serving) {
            self.count += 1;
            // Another member's account is its own; only one that was here before can have left an old one.
            let same = self.last.as_ref().is_some_and(|last| last.uid == serving.uid);
            self.stale = if same { account.to_owned() } else { String::new() };
            self.last = Some(serving);
        }
        (self.count, running && account != self.stale)
    }
}

impl<S: Setting> System for Patroni<S> {
    const PEER: &'static str = S::PEER;

    /// `settings` are changes of our own manifest; Patroni has settings of its own.
    async fn form(world: &World, _settings: &Value) -> Result<Self> {
        let namespace = world.namespace(S::PEER).await?;
        let cluster = Cluster {
            namespace,
            name: NAME.to_owned(),
            applied: Instant::now(),
            write_service: NAME.to_owned(),
            read_service: format!("{NAME}-repl"),
        };
        objects::create(world, &cluster, S::TIMES).await?;
        Ok(Self { cluster, terms: RefCell::default(), setting: PhantomData })
    }

    async fn remove(self, world: &World) -> Result<()> {
        // Before its pods, or it would make new ones.
        let set = world.api::<StatefulSet>(&self.cluster.namespace);
        set.delete(NAME, &DeleteParams::background()).await.context("delete the StatefulSet")?;
        world.remove_namespace(&self.cluster.namespace).await
    }

    fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    fn keeps_master(&self, fault: Fault) -> bool {
        fault == Fault::Postmaster && S::RESTARTS_IN_PLACE
    }

    async fn whole(&self, world: &World, bound: Duration) -> Result<Victim> {
        let what = format!("{} whole with {INSTANCES} members", S::PEER);
        let (state, _) = wait::until(&what, bound, async || {
            let state = State::look(world, &self.cluster.namespace, NAME).await?;
            let route = state::route(world, &self.cluster.namespace, NAME).await?;
            Ok(match state.deficiency(INSTANCES, &route) {
                None => Ok(state),
                Some(why) => Err(format!("{why}: {state}")),
            })
        })
        .await?;
        self.victim(&state)
    }

    async fn healed(&self, world: &World, client: &Client) -> Result<()> {
        wait::until("one primary, and everything agrees", HEAL, async || {
            let state = State::look(world, &self.cluster.namespace, NAME).await?;
            let route = state::route(world, &self.cluster.namespace, NAME).await?;
            if let Some(why) = state.deficiency(INSTANCES, &route) {
                return Ok(Err(format!("{why}: {state}")));
            }
            for member in &state.members {
                let host = self.cluster.member_host(&member.pod.name);
                let answer = client.ask(world, &host).await?;
                let leads = state.leader.as_ref() == Some(&member.pod.name);
                if answer.server != member.pod.ip || answer.in_recovery == leads {
                    return Ok(Err(format!("{} says {answer:?}: {state}", member.pod.name)));
                }
            }
            let through = client.ask(world, &self.cluster.write_host()).await?;
            let primary = state.primary().and_then(|primary| primary.pod.ip.clone());
            wait::when(!through.in_recovery && through.server == primary, || {
                format!("the Service leads to {through:?}")
            })
        })
        .await
        .map(drop)
    }

    async fn look(&self, world: &World) -> Result<View> {
        let state = State::look(world, &self.cluster.namespace, NAME).await?;
        let primary = state.primary();
        let running = primary.is_some_and(|primary| primary.is_primary() && state.routed == primary.pod.ip);
        let account = primary.map(|primary| primary.text.as_str()).unwrap_or_default();
        let (term, open) = self.terms.borrow_mut().count(state.serving(), running, account);
        Ok(View { master: state.leader.clone(), term, open, roles: state.roles() })
    }

    /// Asks as `patronictl switchover` does, without naming a candidate.
    async fn switch_over(&self, world: &World, master: &Victim) -> Result<()> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}:{PORT}/proxy/switchover",
            self.cluster.namespace, master.pod
        );
        let body = json!({"leader": master.pod}).to_string().into_bytes();
        let request = http::Request::post(path).header("content-type", "application/json").body(body)?;
        let answer = tokio::time::timeout(SWITCHOVER, world.client.request_text(request));
        let answer =
            answer.await.with_context(|| format!("no answer to a switchover within {SWITCHOVER:?}"))?;
        let answer = answer.context("ask for a switchover")?;
        ensure!(answer.starts_with("Successfully"), "Patroni refuses to switch over: {answer}");
        Ok(())
    }
}

impl<S> Patroni<S> {
    fn victim(&self, state: &State) -> Result<Victim> {
        let primary = state.primary().context("no primary")?;
        // As PID 1 Patroni starts itself again as a child, under the same command line.
        let program = "*python3' '-m' 'patroni*".to_owned();
        Ok(Victim {
            namespace: self.cluster.namespace.clone(),
            pod: primary.pod.name.clone(),
            node: primary.pod.node.clone().context("the primary has no node")?,
            container: api::names::CONTAINER.to_owned(),
            container_id: primary.pod.container.clone().context("the primary has no container")?,
            pgdata: PGDATA.to_owned(),
            agent: program.clone(),
            supervisor: program,
            controller: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(leader: &str, uid: &str, container: &str) -> Serving {
        let text = |text: &str| text.to_owned();
        Serving { leader: text(leader), uid: text(uid), container: text(container), transitions: text("1") }
    }

    #[test]
    fn another_leader_pod_or_container_is_another_term() {
        let mut terms = Terms::default();
        assert_eq!(terms.count(None, false, ""), (0, false));
        assert_eq!(terms.count(Some(serving("pg-0", "a", "x")), true, "1"), (1, true));
        assert_eq!(terms.count(Some(serving("pg-0", "a", "x")), true, "2"), (1, true));
        assert_eq!(terms.count(None, false, ""), (1, false), "nobody leads meanwhile");
        assert_eq!(terms.count(Some(serving("pg-1", "b", "y")), true, "3"), (2, true));
        assert_eq!(
            terms.count(Some(serving("pg-0", "c", "x")), true, "3"),
            (3, true),
            "the same name in a new pod"
        );
    }

    #[test]
    fn what_a_lost_container_said_last_opens_no_term() {
        let mut terms = Terms::default();
        assert_eq!(terms.count(Some(serving("pg-0", "a", "x")), true, "running 7"), (1, true));
        assert_eq!(terms.count(Some(serving("pg-0", "a", "z")), true, "running 7"), (2, false));
        assert_eq!(terms.count(Some(serving("pg-0", "a", "z")), false, "starting"), (2, false));
        assert_eq!(terms.count(Some(serving("pg-0", "a", "z")), true, "running 9"), (2, true));
    }
}
