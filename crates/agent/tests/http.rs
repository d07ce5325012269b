//! What the agent shows, asked over a socket.

use agent::http::{Outcome, StatusHandle, Verb, serve};
use ha::{
    Boot, Decision, Epoch, Incarnation, MemberId, MemberName, Postgres, Promise, Reason, RecordView, Route,
    Settings, View,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn view() -> View {
    let member = MemberId { name: MemberName("pg-0".into()), incarnation: Incarnation(7) };
    View {
        settings: Settings::new([member.name.clone()]),
        member,
        pod_uid: "uid".into(),
        boot: Boot(1),
        node: "n".into(),
        holds_volume_lock: true,
        terminating: false,
        record: RecordView::Unknown { why: "nobody asked".into() },
        promise: Promise::new(Incarnation(7), "cluster"),
        postgres: Postgres::Starting,
        peers: [].into(),
        route: Route::Unknown,
        swapping: false,
    }
}

#[tokio::test]
async fn people_and_kubelet_are_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let status = StatusHandle::new();
    tokio::spawn(serve(listener, status.clone()));
    let get = |path: &'static str| async move {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(get("/readyz").await.contains("503") && get("/readyz").await.contains("the agent is starting"));

    let waiting = |epoch| Decision {
        because: vec![Reason::Following {
            leader: MemberId { name: MemberName("pg-1".into()), incarnation: Incarnation(1) },
            epoch: Epoch(epoch),
        }],
        ..Decision::default()
    };
    for epoch in 1..=3 {
        status.publish(&view(), &waiting(epoch));
    }
    for n in 0..30 {
        let because = vec![Reason::Waiting { what: n.to_string() }, Reason::HandingOver];
        let because = if n % 2 == 0 { because } else { vec![Reason::RecordMissing] };
        status.publish(&view(), &Decision { because, ..Decision::default() });
    }
    status.metrics().requested(Verb::Get, "Lease", Outcome::Conflict);
    assert!(get("/readyz").await.contains("PostgreSQL is starting"));
    let answer = get("/status").await;
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let document: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(document["view"]["member"]["name"], "pg-0");
    assert_eq!(document["view"]["postgres"]["is"], "starting");
    assert_eq!(document["decisions"].as_array().unwrap().len(), 20);
    assert_eq!(document["ready"], false);
    let metrics = get("/metrics").await;
    for line in [
        "matriarch_agent_api_requests_total{verb=\"Get\",kind=\"Lease\",outcome=\"Conflict\"} 1",
        "matriarch_agent_decisions_total{acted=\"false\"} 33",
        "matriarch_agent_is_leader 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[test]
fn the_same_decision_again_is_counted_not_listed() {
    let status = StatusHandle::new();
    for n in 0..5 {
        let because = vec![Reason::LeaderSilent { millis: n }];
        status.publish(&view(), &Decision { because, ..Decision::default() });
    }
    let document = status.document();
    assert_eq!(document["decisions"].as_array().unwrap().len(), 1);
    assert_eq!(document["decisions"][0]["times"], 5);
    assert_eq!(document["decisions"][0]["because"][0]["millis"], 4);
}
