//! The peer channel on loopback: one address per member (127.0.0.x), one port, certificates of a real authority.

#![expect(clippy::unwrap_used, reason = "what surrounds the tests may fail them too")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::peers::{Channel, Notes, Options};
use ha::{Announcement, Boot, Condition, Epoch, Incarnation, MemberId, MemberName};
use pki::{Authority, Issued, Leaf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Cluster {
    authority: Authority,
    port: u16,
}

fn name(ordinal: u8) -> MemberName {
    MemberName(format!("pg-{ordinal}"))
}

fn address(ordinal: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10 + ordinal))
}

fn words(ordinal: u8, boot: u64) -> Announcement {
    Announcement {
        member: MemberId { name: name(ordinal), incarnation: Incarnation(u64::from(ordinal)) },
        pod_uid: format!("uid-{ordinal}"),
        boot: Boot(boot),
        address: address(ordinal).to_string(),
        sent_at: ha::Instant(0),
        record_epoch: Epoch(1),
        record_generation: 0,
        condition: Condition::Standby,
        leads: None,
        timeline: None,
        sealed_below: Epoch(0),
        report: None,
        suspects: None,
        released: false,
        terminating: false,
        streams_from: None,
        flushed: None,
        rewind_source: false,
        echoes: BTreeMap::new(),
        pending_restart: None,
        parameters_refused: None,
        version: None,
        certificates: None,
        older_life: false,
    }
}

fn authority() -> Authority {
    Authority::create("pg", jiff::Timestamp::now()).unwrap()
}

impl Cluster {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { authority: authority(), port }
    }

    fn leaf(&self) -> Issued {
        peer_leaf(&self.authority)
    }

    /// A member that does not speak yet.
    async fn mute(&self, ordinal: u8, boot: u64) -> Channel {
        let options = Options {
            listen: SocketAddr::new(address(ordinal), self.port),
            member: name(ordinal),
            boot: Boot(boot),
            cluster: "pg".into(),
            namespace: "shop".into(),
            port: self.port,
            live_port: None,
        };
        Channel::bind(options).await.unwrap()
    }

    async fn member(&self, ordinal: u8, boot: u64, peers: &[u8]) -> Channel {
        let channel = self.mute(ordinal, boot).await;
        let leaf = self.leaf();
        channel.set_tls(self.authority.certificate_pem(), leaf.certificate_pem(), leaf.key_pem()).unwrap();
        channel.announce(words(ordinal, boot));
        channel.set_peers(peers.iter().map(|peer| (name(*peer), address(*peer))).collect());
        channel
    }
}

fn peer_leaf(authority: &Authority) -> Issued {
    let names = pki::names::peer_names("pg", "shop");
    authority.issue(&Leaf::peer("peer:shop/pg", names), jiff::Timestamp::now()).unwrap()
}

async fn eventually(what: &str, done: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(8), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

fn hears(channel: &Channel, ordinal: u8, test: impl Fn(&ha::Peer) -> bool) -> bool {
    channel.heard().get(&name(ordinal)).is_some_and(test)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_hear_and_confirm_each_other() {
    let cluster = Cluster::new();
    let (zero, one) = (cluster.member(0, 1, &[0, 1]).await, cluster.member(1, 2, &[0, 1]).await);
    eventually("both hear", || hears(&zero, 1, |_| true) && hears(&one, 0, |_| true)).await;
    eventually("confirmed", || hears(&zero, 1, |peer| peer.confirmed_at.is_some())).await;
    let confirmed = |channel: &Channel, of| channel.heard()[&name(of)].confirmed_at;
    let before = confirmed(&zero, 1);
    eventually("it goes on", || confirmed(&zero, 1) > before).await;
    let peer = &zero.heard()[&name(1)];
    assert!(peer.confirmed_at.unwrap() <= peer.heard_at);
    assert_eq!(peer.announcement.boot, Boot(2));
    assert!(!zero.heard().contains_key(&name(0)), "nobody hears itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_notes_reaches_the_others_and_goes_again() {
    let cluster = Cluster::new();
    let (zero, one) = (cluster.member(0, 1, &[0, 1]).await, cluster.member(1, 2, &[0, 1]).await);
    let kept = api::KeptWal { path: "/data/diverged/1".into(), bytes: 16_777_216 };
    one.note(Notes { diverged_wal: vec![kept.clone()] });
    let seen = |channel: &Channel| {
        channel.notes().get(&name(1)).map(|notes| notes.diverged_wal.clone()).unwrap_or_default()
    };
    eventually("the note is there", || seen(&zero) == [kept.clone()]).await;
    assert!(hears(&zero, 1, |peer| peer.announcement.boot == Boot(2)), "beside the announcement");
    one.note(Notes::default());
    eventually("the note is gone", || seen(&zero).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_travel_at_once_and_wake_the_driver_and_repetition_does_not() {
    let cluster = Cluster::new();
    let all = [0, 1, 2];
    let zero = cluster.member(0, 1, &all).await;
    let (one, two) = (cluster.member(1, 1, &all).await, cluster.member(2, 1, &all).await);
    let everybody = |channel: &Channel| channel.heard().len() == 2;
    eventually("all hear all", || everybody(&zero) && everybody(&one) && everybody(&two)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    while tokio::time::timeout(Duration::from_millis(1), one.changed()).await.is_ok() {}
    let idle = tokio::time::timeout(Duration::from_millis(700), one.changed()).await;
    assert!(idle.is_err(), "heartbeats alone wake nobody");

    let mut total = Duration::ZERO;
    for epoch in 1..=20 {
        tokio::time::sleep(Duration::from_millis(37)).await;
        let began = Instant::now();
        zero.announce(Announcement { released: true, sealed_below: Epoch(epoch), ..words(0, 1) });
        tokio::time::timeout(Duration::from_secs(2), one.changed()).await.unwrap();
        total += began.elapsed();
        assert!(hears(&one, 0, |peer| peer.announcement.sealed_below == Epoch(epoch)));
    }
    assert!(total / 20 < Duration::from_millis(50), "{:?} on average", total / 20);
}

/// K10: another authority's certificate, in both directions, and no certificate at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_neither_heard_nor_told() {
    let cluster = Cluster::new();
    let zero = cluster.member(0, 1, &[0, 1]).await;
    let theirs = authority();
    let stranger = cluster.mute(1, 6).await;
    let leaf = peer_leaf(&theirs);
    // It trusts everybody it could meet, and signs for itself.
    let bundle = cluster.authority.certificate_pem().to_owned() + theirs.certificate_pem();
    stranger.set_tls(&bundle, leaf.certificate_pem(), leaf.key_pem()).unwrap();
    stranger.announce(words(1, 6));
    stranger.set_peers([(name(0), address(0))].into());

    let mut plain = TcpStream::connect((address(0), cluster.port)).await.unwrap();
    let said = serde_json::to_vec(&words(2, 9)).unwrap();
    plain.write_u32(u32::try_from(said.len()).unwrap()).await.unwrap();
    let _ = plain.write_all(&said).await;
    let ended = tokio::time::timeout(Duration::from_secs(4), plain.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "it is hung up on");

    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(zero.heard().is_empty() && stranger.heard().is_empty());
}

/// A member of the cluster may not send what costs memory without bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_message_ends_the_connection() {
    let cluster = Cluster::new();
    let zero = cluster.member(0, 1, &[]).await;
    let leaf = cluster.leaf();
    let bundle = pki::Bundle::from_pem(cluster.authority.certificate_pem()).unwrap();
    let client = pki::peer_client_config(&bundle, leaf.certificate_pem(), leaf.key_pem()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let tcp = TcpStream::connect((address(0), cluster.port)).await.unwrap();
    let host = "pg-0.pg-pods.shop.svc".try_into().unwrap();
    let mut stream = connector.connect(host, tcp).await.unwrap();
    stream.write_u32(1 << 30).await.unwrap();
    stream.flush().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut [0; 8])).await;
    assert!(ended.is_ok(), "it is hung up on");
    assert!(zero.heard().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_dies_is_refused_and_heard_again_when_it_is_back() {
    let cluster = Cluster::new();
    let zero = cluster.member(0, 1, &[0, 1]).await;
    // Another runtime, so that the whole member can die at once, as a process does.
    let life = |boot: u64| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let channel = runtime.block_on(cluster.member(1, boot, &[0, 1]));
        (runtime, channel)
    };
    let (runtime, channel) = tokio::task::block_in_place(|| life(5));
    eventually("heard", || hears(&zero, 1, |peer| peer.confirmed_at.is_some() && !peer.refused)).await;
    drop(channel);
    runtime.shutdown_background();
    let took = eventually("refused", || hears(&zero, 1, |peer| peer.refused)).await;
    assert!(took < Duration::from_secs(1), "{took:?}");

    let (runtime, channel) = tokio::task::block_in_place(|| life(6));
    let back =
        |peer: &ha::Peer| peer.announcement.boot == Boot(6) && !peer.refused && peer.confirmed_at.is_some();
    let took = eventually("heard again", || hears(&zero, 1, back)).await;
    assert!(took < Duration::from_millis(2500), "{took:?}");
    eventually("and hears", || hears(&channel, 0, |_| true)).await;
    drop(channel);
    runtime.shutdown_background();
}

/// K10: the bundle grows first, then leaves change, then the bundle shrinks; the talk goes on at every step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_under_way() {
    let cluster = Cluster::new();
    let (zero, one) = (cluster.member(0, 1, &[0, 1]).await, cluster.member(1, 2, &[0, 1]).await);
    let next = authority();
    let both = cluster.authority.certificate_pem().to_owned() + next.certificate_pem();
    let (old, new) = (cluster.leaf(), peer_leaf(&next));
    let steps: [(&str, &Issued); 3] = [(&both, &old), (&both, &new), (next.certificate_pem(), &new)];
    for (bundle, leaf) in steps {
        for channel in [&zero, &one] {
            channel.set_tls(bundle, leaf.certificate_pem(), leaf.key_pem()).unwrap();
        }
        let (before, began) = (ha::Instant(agent::clock::now().0), Instant::now());
        let fresh = |peer: &ha::Peer| peer.confirmed_at > Some(before);
        eventually("confirmed anew", || hears(&zero, 1, fresh) && hears(&one, 0, fresh)).await;
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    assert!(zero.set_tls("rubbish", new.certificate_pem(), new.key_pem()).is_err());
    assert!(zero.set_tls(&both, new.certificate_pem(), old.key_pem()).is_err());
}
