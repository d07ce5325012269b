//! P9, P23: what positions mean.

use std::time::Instant;

use crate::common::{BOUND, Member, each_major};
use ha::Lsn;
use postgres::server::{Observation, StopMode};
use postgres::settings::{Archive, UserParameters};
use rustix::process::Signal;

each_major!(p09_a_partial_record_keeps_the_receive_position_above_the_replay_position, async |lab| {
    let mut one = Member::new(&lab, 1);
    let small = [
        ("wal_buffers", "64kB"),
        ("shared_buffers", "16MB"),
        ("wal_keep_size", "512MB"),
        ("max_worker_processes", "4"),
    ];
    let small = small.map(|(k, v)| (k.to_owned(), v.to_owned()));
    one.settings.user = UserParameters::new(small, []).unwrap();
    one.initialise().await;
    let mut two = Member::standby_of(&mut one, 2).await;
    let client = one.client().await;
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let before = one.flushed().await;
    // One record of many segments: the log is flushed segment by segment while the record is still being written.
    let load = tokio::spawn(async move {
        let emit = "SELECT pg_logical_emit_message(false, 'x', repeat('x', 300000000))";
        let _ = client.batch_execute(emit).await;
    });
    let start = Instant::now();
    let Observation::Standby(seen) = two
        .wait_for(
            "a part",
            |o| matches!(o, Observation::Standby(s) if s.received >= Some(Lsn(before.0 + (16 << 20)))),
        )
        .await
    else {
        panic!("no standby");
    };
    crate::common::send(backend, Signal::STOP);
    println!("received {:?} after {:?}", seen.received, start.elapsed());
    one.kill().await;
    load.abort();
    let end = two.seal().await;
    let Observation::Standby(seen) = two.observe().await else { panic!("no standby") };
    assert!(seen.received > Some(end.lsn), "the whole record arrived: {seen:?}, end {end}");
    assert_eq!(seen.replayed, Some(end.lsn));
    assert_eq!(two.end_of_wal().await, end, "and stays so");
    assert!(start.elapsed() < BOUND * 3);
});

each_major!(p23_archiving_switches_the_segment_at_a_shutdown, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    one.make_table().await;
    one.stop(StopMode::Fast).await;
    let plain = one.control().await;
    assert!(plain.checkpoint.0 % plain.segment.bytes() > 8192, "in the middle of a segment");
    one.settings.protocol.archive = Archive::Command("/bin/true".to_owned());
    one.start_primary().await;
    one.session().await.batch("write", "INSERT INTO public.t VALUES (1)").await.unwrap();
    one.stop(StopMode::Fast).await;
    let archived = one.control().await;
    assert!(archived.checkpoint.0 % archived.segment.bytes() < 8192, "{}", archived.checkpoint);
    let end = one.reader().await.shutdown_end(&archived, BOUND).await.unwrap();
    assert!(end.lsn > archived.checkpoint, "the end is behind the start that the control file gives");
});
