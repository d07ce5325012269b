//! P13, P14, P19: what a standby does with a reload, a name and a value.

use std::process::Stdio;
use std::time::Instant;

use crate::common::{BOUND, Member, any_of, each_major};
use postgres::conninfo::Purpose;
use postgres::process::Program;
use postgres::reload;
use postgres::server::{Observation, StopMode};
use postgres::settings::UserParameters;
use rustix::process::Signal;

each_major!(p13_an_empty_upstream_does_not_end_the_receiver_while_replay_is_blocked, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let mut two = Member::standby_of(&mut one, 2).await;
    one.set_names(any_of(&[&two])).await;
    let client = one.client().await;
    client.batch_execute("CREATE TABLE public.t (x int)").await.unwrap();
    // Blocked for good: what a conflict with a session does, without its timeout.
    let startup = two.process("startup").await;
    crate::common::send(startup, Signal::STOP);
    two.settings.protocol.upstream = None;
    two.settings.write_protocol(&two.layout).await.unwrap();
    let session = two.session().await;
    reload::reload(&two.layout, &session, BOUND).await.unwrap();
    let shown: String = two.session().await.value("show", "SHOW primary_conninfo", &[]).await.unwrap();
    assert_eq!(shown, "");
    let acknowledged = tokio::time::timeout(BOUND, client.batch_execute("INSERT INTO public.t VALUES (1)"));
    acknowledged.await.expect("acknowledged by a member that streams from nobody, it says").unwrap();
    crate::common::send(startup, Signal::CONT);
    two.wait_for("no stream", |o| matches!(o, Observation::Standby(s) if !s.streaming)).await;
});

each_major!(p14_a_clone_under_a_members_name_counts_as_that_member, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    one.make_table().await;
    let two = Member::new(&lab, 2);
    one.admit(two.incarnation).await;
    one.set_names(any_of(&[&two])).await;
    let waiting = one.waiting_commit().await;
    // What our own clone never does: stream under the name that counts.
    let info = one.upstream().conninfo(two.incarnation, Purpose::Stream, None);
    Program::new(lab.binaries.program("pg_basebackup"))
        .option("--dbname", info)
        .option("--pgdata", lab.path().join("copy"))
        .arg("--wal-method=stream")
        .arg("--checkpoint=fast")
        // It says what it has flushed when the server asks, which is after half of wal_sender_timeout.
        .arg("--max-rate=6M")
        .arg("--no-password")
        .run(BOUND * 3, |_| {})
        .await
        .unwrap();
    let answer = tokio::time::timeout(BOUND, waiting).await.expect("acknowledged by a copy").unwrap();
    assert_eq!(answer.unwrap(), 1);
});

each_major!(p14_a_walsender_can_be_listed_without_positions, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let two = Member::standby_of(&mut one, 2).await;
    let receiver = two.process("walreceiver").await;
    let session = one.session().await;
    // Frozen before its first answer: a new walsender knows nothing of it.
    crate::common::send(receiver, Signal::STOP);
    let mut silent = tokio::process::Command::new(lab.binaries.program("pg_basebackup"))
        .args(["--pgdata", &lab.path().join("copy").to_string_lossy(), "--max-rate=32k", "--dbname"])
        .arg(one.upstream().conninfo(two.incarnation, Purpose::Clone, None))
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let start = Instant::now();
    loop {
        let rows = postgres::replication::standbys::walsenders(&session).await.unwrap();
        if rows.iter().any(|w| w.flushed.is_none()) {
            let known = postgres::replication::standbys::flushed_by(&rows, ha::Lsn(0));
            assert!(
                rows.iter()
                    .filter(|w| w.flushed.is_none())
                    .all(|w| w.member().is_none_or(|m| !known.contains(&m)))
            );
            break;
        }
        assert!(start.elapsed() < BOUND, "{rows:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    silent.kill().await.unwrap();
    crate::common::send(receiver, Signal::CONT);
});

each_major!(p19_a_standby_that_met_a_higher_value_is_shut_down_by_its_promotion, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let mut two = Member::standby_of(&mut one, 2).await;
    one.stop(StopMode::Fast).await;
    let higher = [("max_connections".to_owned(), "150".to_owned())];
    one.settings.user = UserParameters::new(higher, []).unwrap();
    one.start_primary().await;
    two.wait_for("pause", |o| matches!(o, Observation::Standby(s) if s.paused)).await;
    let session = two.session().await;
    session.rows("promote", "SELECT pg_promote(false)", &[]).await.unwrap();
    assert!(two.ends_within(BOUND).await, "it goes on\n{}", two.log());
    assert!(two.log().contains("insufficient parameter settings"), "{}", two.log());
});
