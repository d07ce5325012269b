use super::{Election, Ends, Leadership, Order, View};
use crate::{
    Calls,
    mock::{Answer, Asked, Store, api_server},
};
use ha::election::{Candidate, Times};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases";
const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/operator";
/// Whatever is waited for comes long before this.
const LONG: Duration = Duration::from_secs(20);

struct Running {
    view: watch::Receiver<View>,
    orders: mpsc::Sender<Order>,
    works: watch::Sender<usize>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

/// The store, with lists of the one Lease, and watches that tell what is new and end.
fn answer(store: &Store, asked: &Asked) -> Answer {
    if asked.method != "GET" || asked.path != LEASES {
        return store.answer(asked);
    }
    let lease = store.object(PATH);
    if !asked.query.contains("watch=true") {
        let items: Vec<_> = lease.into_iter().collect();
        return Answer::Json(
            200,
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList",
                   "metadata": {"resourceVersion": "1"}, "items": items}),
        );
    }
    let version = |text: &str| {
        let (_, rest) = text.split_once("resourceVersion=").unwrap();
        rest.split('&').next().unwrap().parse::<u64>().unwrap()
    };
    let events = lease.filter(|lease| {
        let now = lease["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        now > version(&asked.query)
    });
    let lines = events.map(|lease| json!({"type": "MODIFIED", "object": lease}).to_string() + "\n");
    Answer::Text(200, lines.unwrap_or_default())
}

fn runs(store: &Store, identity: &str, cut: &Arc<AtomicBool>) -> Running {
    let (store, cut) = (store.clone(), cut.clone());
    let (client, _) =
        api_server(
            move |asked| {
                if cut.load(Ordering::Relaxed) { Answer::Silence } else { answer(&store, asked) }
            },
        );
    let times = Times::of_ttl(Duration::from_secs(1)).unwrap();
    let candidate = Candidate::new(identity, times).standing(identity, 1).taking_fresh();
    let calls = Calls::new(client.clone(), Duration::from_millis(100));
    let (tell, view) = watch::channel(View::default());
    let (orders, received) = mpsc::channel(1);
    let (works, counted) = watch::channel(0);
    let (stop, stopped) = oneshot::channel::<()>();
    let election = Election::new(&calls, client, "shop", "operator", candidate);
    let ends = Ends { tell, orders: received, works: counted };
    let task = tokio::spawn(election.run(ends, async {
        let _ = stopped.await;
    }));
    Running { view, orders, works, stop, task }
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

async fn until(running: &mut Running, what: impl FnMut(&View) -> bool) -> View {
    let wait = tokio::time::timeout(LONG, running.view.wait_for(what)).await;
    wait.expect("in time").expect("the election runs").clone()
}

fn up() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(false))
}

#[tokio::test]
async fn one_leads_and_a_release_hands_over() {
    let store = store();
    let mut one = runs(&store, "one", &up());
    let view = until(&mut one, |view| view.leadership.leads()).await;
    let Leadership::Leading { epoch, .. } = view.leadership else { panic!() };
    let mut two = runs(&store, "two", &up());
    let view = until(&mut two, |view| view.candidates.len() == 2).await;
    assert!(!view.leadership.leads());
    assert_eq!(view.holder.unwrap().1, "one");
    one.stop.send(()).unwrap();
    one.task.await.unwrap();
    let view = until(&mut two, |view| view.leadership.leads()).await;
    assert!(matches!(view.leadership, Leadership::Leading { epoch: next, .. } if next == epoch + 1));
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
    let (store, cut) = (store(), up());
    let mut one = runs(&store, "one", &cut);
    until(&mut one, |view| view.leadership.leads()).await;
    let mut two = runs(&store, "two", &up());
    until(&mut two, |view| view.holder.is_some()).await;
    cut.store(true, Ordering::Relaxed);
    until(&mut two, |view| view.leadership.leads()).await;
    assert!(!one.view.borrow().leadership.leads());
    until(&mut one, |view| view.leadership == Leadership::Standby && view.problem.is_some()).await;
}

#[tokio::test]
async fn the_lease_is_released_only_after_the_work_ended() {
    let store = store();
    let mut one = runs(&store, "one", &up());
    until(&mut one, |view| view.leadership.leads()).await;
    one.works.send_modify(|works| *works += 1);
    let (answer, mut answered) = oneshot::channel();
    one.orders.send(Order::StepDown { to: None, answer }).await.unwrap();
    until(&mut one, |view| matches!(view.leadership, Leadership::Ending { .. })).await;
    assert!(answered.try_recv().is_err());
    assert_eq!(store.object(PATH).unwrap()["spec"]["holderIdentity"], "one");
    one.works.send_modify(|works| *works -= 1);
    tokio::time::timeout(LONG, answered).await.unwrap().unwrap().unwrap();
    assert!(store.object(PATH).unwrap()["spec"]["holderIdentity"].is_null());
    until(&mut one, |view| view.leadership.leads()).await;
}

#[tokio::test]
async fn a_deleted_lease_is_made_again_by_who_leads() {
    let store = store();
    let mut one = runs(&store, "one", &up());
    let view = until(&mut one, |view| view.leadership.leads()).await;
    let Leadership::Leading { epoch, .. } = view.leadership else { panic!() };
    store.remove(PATH);
    let again = tokio::time::timeout(LONG, async {
        while store.object(PATH).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    again.await.unwrap();
    let lease = store.object(PATH).unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "one");
    until(
        &mut one,
        |view| matches!(view.leadership, Leadership::Leading { epoch: same, .. } if same == epoch),
    )
    .await;
}
