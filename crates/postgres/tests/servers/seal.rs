//! P8, P9, P13: the stream stops whatever replay does, and the end of the log is found.

use std::time::{Duration, Instant};

use crate::common::{BOUND, Member, any_of, run};
use ha::Timeline;
use postgres::seal;
use postgres::server::{Observation, StopMode};
use rustix::process::Signal;

#[test]
fn p08_everything_acknowledged_is_below_the_reported_end() {
    run(module_path!(), "p08_everything_acknowledged_is_below_the_reported_end", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let mut two = Member::standby_of(&mut one, 2).await;
            one.set_names(any_of(&[&two])).await;
            let client = one.client().await;
            client.batch_execute("CREATE TABLE public.t (x int, y text)").await.unwrap();
            // Acknowledged means flushed there, not yet replayed.
            two.wait_replayed(one.flushed().await).await;
            for round in 0..5 {
                let before = two.count("t").await;
                // Under load, so that the receiver is cut in the middle of something.
                let load = tokio::spawn({
                    let client = one.client().await;
                    async move {
                        let mut acknowledged = 0_i64;
                        let insert =
                            "INSERT INTO public.t SELECT g, repeat('x', 500) FROM generate_series(1, 50) g";
                        while tokio::time::timeout(Duration::from_millis(700), client.execute(insert, &[]))
                            .await
                            .is_ok_and(|r| r.is_ok())
                        {
                            acknowledged += 50;
                        }
                        acknowledged
                    }
                });
                tokio::time::sleep(Duration::from_millis(150)).await;
                let start = Instant::now();
                let end = two.seal().await;
                println!("round {round}: sealed in {:?} at {end}", start.elapsed());
                let acknowledged = load.await.unwrap();
                assert!(acknowledged > 0, "the load wrote nothing");
                let there = two.count("t").await - before;
                assert!(there >= acknowledged, "{acknowledged} rows acknowledged, {there} there");
                let session = two.session().await;
                assert!(seal::is_silent(&two.layout, &session, "pg").await.unwrap());
                assert_eq!(two.end_of_wal().await, end, "the end does not move");
                // The commit that waits is released by following again.
                two.settings.protocol.upstream = Some(one.upstream());
                postgres::follow::follow(&two.layout, &session, &two.settings, BOUND).await.unwrap();
                two.wait_streaming().await;
                two.wait_replayed(one.flushed().await).await;
            }
        })
    });
}

#[test]
fn p13_a_replay_conflict_does_not_keep_the_stream_alive() {
    run(module_path!(), "p13_a_replay_conflict_does_not_keep_the_stream_alive", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let mut two = Member::new(&lab, 2);
            let endless = [("max_standby_streaming_delay", "-1"), ("max_standby_archive_delay", "-1")];
            let endless = endless.map(|(k, v)| (k.to_owned(), v.to_owned()));
            two.settings.user = postgres::settings::UserParameters::new(endless, []).unwrap();
            one.admit(two.incarnation).await;
            postgres::command::basebackup::clone_from(
                &lab.binaries,
                &two.layout,
                &one.upstream(),
                two.incarnation,
                Duration::from_secs(120),
                |_| {},
            )
            .await
            .unwrap();
            two.start_standby(Some(one.upstream())).await;
            two.wait_streaming().await;
            one.set_names(any_of(&[&two])).await;
            let client = one.client().await;
            client
                .batch_execute("CREATE TABLE public.t AS SELECT generate_series(1, 1000) AS x")
                .await
                .unwrap();
            two.wait_replayed(one.flushed().await).await;
            // A reader whose lock the master's exclusive lock conflicts with.
            let reader = two.client().await;
            reader.batch_execute("BEGIN; LOCK TABLE public.t IN ACCESS SHARE MODE").await.unwrap();
            client
                .batch_execute("BEGIN; LOCK TABLE public.t; INSERT INTO public.t VALUES (0); COMMIT")
                .await
                .unwrap();
            client.batch_execute("INSERT INTO public.t VALUES (-1)").await.unwrap();
            let acknowledged = one.flushed().await;
            let Observation::Standby(seen) = two.observe().await else { panic!("no standby") };
            assert!(seen.replayed < Some(acknowledged), "replay is not held up: {seen:?}");

            let start = Instant::now();
            let end = two.seal().await;
            println!("sealed in {:?}", start.elapsed());
            assert!(end.lsn >= acknowledged, "{end} < {acknowledged}");
            assert_eq!(two.count("t").await, 1002);
        })
    });
}

#[test]
fn p13_a_frozen_startup_process_is_reported_as_stuck() {
    run(module_path!(), "p13_a_frozen_startup_process_is_reported_as_stuck", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let mut two = Member::standby_of(&mut one, 2).await;
            let startup = two.process("startup").await;
            crate::common::send(startup, Signal::STOP);
            let session = two.session().await;
            let bound = Duration::from_millis(600);
            let error = seal::stop_receiving(&two.layout, &session, &two.settings, bound).await.unwrap_err();
            assert!(matches!(error, seal::SealError::Stuck { .. }), "{error:?}");
            // The way out: an immediate stop, and a start without an upstream.
            two.kill().await;
            two.start_standby(None).await;
            let end = two.end_of_wal().await;
            assert_eq!(end.timeline, Timeline(1));
        })
    });
}

#[test]
fn p08_a_killed_standby_still_reports_what_it_had_acknowledged() {
    run(module_path!(), "p08_a_killed_standby_still_reports_what_it_had_acknowledged", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let mut two = Member::standby_of(&mut one, 2).await;
            one.set_names(any_of(&[&two])).await;
            // Replay is paused, so that much is flushed and acknowledged, and nothing of it replayed.
            let session = two.session().await;
            session.rows("pause", "SELECT pg_wal_replay_pause()", &[]).await.unwrap();
            let client = one.client().await;
            client
                .batch_execute("CREATE TABLE public.t AS SELECT generate_series(1, 50000) AS x")
                .await
                .unwrap();
            let acknowledged = one.flushed().await;
            drop(session);
            two.kill().await;
            two.start_standby(None).await;
            let end = two.end_of_wal().await;
            assert!(end.lsn >= acknowledged, "{end} < {acknowledged}");
            assert_eq!(two.count("t").await, 50_000);
        })
    });
}

#[test]
fn a_paused_replay_is_resumed_by_the_seal() {
    run(module_path!(), "a_paused_replay_is_resumed_by_the_seal", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let mut two = Member::standby_of(&mut one, 2).await;
            one.set_names(any_of(&[&two])).await;
            let session = two.session().await;
            session.rows("pause", "SELECT pg_wal_replay_pause()", &[]).await.unwrap();
            one.client().await.batch_execute("CREATE TABLE public.t AS SELECT 1 AS x").await.unwrap();
            let acknowledged = one.flushed().await;
            // A client that connects and says nothing is no reason to wait for its authentication timeout.
            let _silent = tokio::net::TcpStream::connect(("127.0.0.1", two.layout.port())).await.unwrap();
            let start = Instant::now();
            assert!(two.seal().await.lsn >= acknowledged);
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
            assert_eq!(two.count("t").await, 1);
        })
    });
}

#[test]
fn p23_a_clean_stop_ends_where_the_standby_ends() {
    run(module_path!(), "p23_a_clean_stop_ends_where_the_standby_ends", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let mut two = Member::standby_of(&mut one, 2).await;
            one.session().await.batch("write", "CREATE TABLE public.t AS SELECT 1 AS x").await.unwrap();
            one.stop(StopMode::Fast).await;
            let control = one.control().await;
            // Segments are made ahead, full of zeros; whichever file a directory lists first must not matter.
            for number in 0..64 {
                let ahead = one.layout.wal().join(format!("{:08X}{:016X}", 0xFF, number));
                std::fs::write(ahead, [0; 8192]).unwrap();
            }
            let end = one.reader().await.shutdown_end(&control, BOUND).await.unwrap();
            assert!(end.lsn > control.checkpoint);
            assert_eq!(two.seal().await, end, "the fast stop waited for the standby");
            // A killed one has no such end.
            two.kill().await;
            let control = two.control().await;
            assert!(two.reader().await.shutdown_end(&control, BOUND).await.is_err());
        })
    });
}

#[test]
fn p19_a_standby_with_too_low_values_restarts_with_those_of_its_log() {
    run(module_path!(), "p19_a_standby_with_too_low_values_restarts_with_those_of_its_log", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let mut two = Member::standby_of(&mut one, 2).await;
            one.stop(StopMode::Fast).await;
            let higher = [("max_connections".to_owned(), "150".to_owned())];
            one.settings.user = postgres::settings::UserParameters::new(higher, []).unwrap();
            one.start_primary().await;
            one.session().await.batch("write", "CREATE TABLE public.t AS SELECT 1 AS x").await.unwrap();
            two.wait_for("pause", |o| matches!(o, Observation::Standby(s) if s.paused)).await;
            two.kill().await;

            let control = two.control().await;
            let floors = postgres::settings::floors(&control, &two.settings.user.effective());
            assert_eq!(floors.get("max_connections"), Some(&150), "{floors:?}");
            two.settings.protocol.floors = floors;
            two.start_standby(Some(one.upstream())).await;
            two.wait_replayed(one.flushed().await).await;
            assert_eq!(two.count("t").await, 1);
        })
    });
}

#[test]
fn p08_a_record_that_is_on_disk_and_not_replayed_is_never_missed() {
    run(module_path!(), "p08_a_record_that_is_on_disk_and_not_replayed_is_never_missed", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let mut two = Member::standby_of(&mut one, 2).await;
            one.set_names(any_of(&[&two])).await;
            let client = one.client().await;
            client.batch_execute("CREATE TABLE public.t (x int)").await.unwrap();
            two.wait_replayed(one.flushed().await).await;
            let startup = two.process("startup").await;
            crate::common::send(startup, Signal::STOP);
            client.batch_execute("INSERT INTO public.t VALUES (1)").await.unwrap();
            let acknowledged = one.flushed().await;
            // The stream is cut by hand: stopping it properly needs the startup process.
            two.settings.protocol.upstream = None;
            two.settings.write_protocol(&two.layout).await.unwrap();
            let session = two.session().await;
            postgres::reload::reload(&two.layout, &session, BOUND).await.unwrap();
            crate::common::send(two.process("walreceiver").await, Signal::TERM);
            let start = Instant::now();
            while !seal::is_silent(&two.layout, &session, "pg").await.unwrap() {
                assert!(start.elapsed() < BOUND, "the walreceiver does not end");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let reader = two.reader().await;
            let bound = Duration::from_millis(1500);
            let early = seal::end_of_wal(&two.layout, &session, &reader, "pg", bound).await;
            assert!(
                match &early {
                    Err(seal::SealError::NotAtEnd { what, .. }) => what.contains("is not replayed"),
                    // The last look may run out of time where the machine is busy.
                    Err(seal::SealError::Identify(_)) => true,
                    _ => false,
                },
                "{early:?}, acknowledged {acknowledged}"
            );
            crate::common::send(startup, Signal::CONT);
            assert!(two.end_of_wal().await.lsn >= acknowledged);
            assert_eq!(two.count("t").await, 1);
        })
    });
}

#[test]
fn p08_a_log_that_ends_with_its_segment_is_measured_at_once() {
    run(module_path!(), "p08_a_log_that_ends_with_its_segment_is_measured_at_once", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let mut two = Member::standby_of(&mut one, 2).await;
            let session = one.session().await;
            session.batch("write", "CREATE TABLE public.t AS SELECT 1 AS x").await.unwrap();
            session.rows("switch", "SELECT pg_switch_wal()::text", &[]).await.unwrap();
            let written = one.flushed().await;
            two.wait_replayed(written).await;
            one.kill().await;
            let start = Instant::now();
            let end = two.seal().await;
            // The reader would wait five seconds for the file of the next segment.
            assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
            assert!(end.lsn >= written, "{end} < {written}");
        })
    });
}
