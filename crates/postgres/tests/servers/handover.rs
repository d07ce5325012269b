//! P17: nothing but the target's own log holds a planned stop up.

use std::time::{Duration, Instant};

use crate::common::{BOUND, Member, any_of, run};
use postgres::replication::lagging::{PATIENCE, end_lagging_walsenders};
use postgres::server::StopMode;
use postgres::settings::Archive;
use postgres::{archiver, server};
use rustix::process::Signal;

/// Below `wal_sender_timeout` (5 s), which is what a frozen standby costs.
const SOON: Duration = Duration::from_secs(4);

#[test]
fn p17_a_frozen_standby_holds_a_fast_stop_up() {
    run(module_path!(), "p17_a_frozen_standby_holds_a_fast_stop_up", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let two = Member::standby_of(&mut one, 2).await;
            let receiver = two.process("walreceiver").await;
            crate::common::send(receiver, Signal::STOP);
            server::stop(&one.layout, StopMode::Fast).unwrap();
            assert!(!one.ends_within(Duration::from_millis(1500)).await, "nobody waited for the frozen one");
            crate::common::send(receiver, Signal::CONT);
            assert!(one.ends_within(BOUND).await);
        })
    });
}

#[test]
fn p17_a_lagging_walsender_is_ended_and_the_one_that_keeps_up_is_not() {
    run(module_path!(), "p17_a_lagging_walsender_is_ended_and_the_one_that_keeps_up_is_not", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let mut two = Member::standby_of(&mut one, 2).await;
            let three = Member::standby_of(&mut one, 3).await;
            one.set_names(any_of(&[&two, &three])).await;
            let receiver = three.process("walreceiver").await;
            crate::common::send(receiver, Signal::STOP);
            // More than fits into the buffers of a connection: the walsender is stuck in the middle of a write.
            let client = one.client().await;
            let much =
                "CREATE TABLE public.t AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 20000)";
            client.batch_execute(much).await.unwrap();

            let session = one.session().await;
            session.batch("checkpoint", "CHECKPOINT").await.unwrap();
            let outcome = end_lagging_walsenders(&session, PATIENCE, BOUND).await.unwrap();
            assert_eq!(outcome.caught_up.into_iter().collect::<Vec<_>>(), [two.incarnation]);
            let ended: Vec<_> =
                outcome.ended.iter().map(postgres::replication::standbys::Walsender::member).collect();
            assert_eq!(ended, [Some(three.incarnation)]);
            drop(session);

            let started = Instant::now();
            server::stop(&one.layout, StopMode::Fast).unwrap();
            assert!(one.ends_within(SOON).await, "the stop takes longer than {SOON:?}\n{}", one.log());
            println!("stopped in {:?}", started.elapsed());
            let control = one.control().await;
            let end = one.reader().await.shutdown_end(&control, BOUND).await.unwrap();
            assert_eq!(two.seal().await, end, "the target has the whole log");
            crate::common::send(receiver, Signal::CONT);
        })
    });
}

#[test]
fn p17_a_slow_archive_command_holds_a_stop_up_unless_it_is_held() {
    run(module_path!(), "p17_a_slow_archive_command_holds_a_stop_up_unless_it_is_held", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let session = one.session().await;
            // Off already: nothing to do, nothing written.
            archiver::hold(&one.layout, &session, &one.settings, BOUND).await.unwrap();
            drop(session);
            one.stop(StopMode::Fast).await;
            one.settings.protocol.archive = Archive::Command("/bin/sleep 300 && false".to_owned());
            one.start_primary().await;
            let session = one.session().await;
            session.batch("fill a segment", "SELECT pg_logical_emit_message(false, 'x', 'x')").await.unwrap();
            session.rows("switch", "SELECT pg_switch_wal()::text", &[]).await.unwrap();
            let running =
                "SELECT wait_event = 'ArchiveCommand' FROM pg_stat_activity WHERE backend_type = 'archiver'";
            let start = Instant::now();
            while !session.value::<Option<bool>>("look", running, &[]).await.unwrap().unwrap_or(false) {
                assert!(start.elapsed() < BOUND, "nothing is archived");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            archiver::hold(&one.layout, &session, &one.settings, BOUND).await.unwrap();
            let shown: String = one
                .session()
                .await
                .value(
                    "show",
                    "SELECT current_setting('archive_mode') || current_setting('archive_command')",
                    &[],
                )
                .await
                .unwrap();
            assert_eq!(shown, "on");
            drop(session);
            server::stop(&one.layout, StopMode::Fast).unwrap();
            assert!(one.ends_within(SOON).await, "the command holds the stop up\n{}", one.log());

            // Without: the segment is still to be archived, and the stop waits for it.
            one.start_primary().await;
            let session = one.session().await;
            while !session.value::<Option<bool>>("look", running, &[]).await.unwrap().unwrap_or(false) {
                assert!(start.elapsed() < BOUND + BOUND, "nothing is archived");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            drop(session);
            server::stop(&one.layout, StopMode::Fast).unwrap();
            assert!(!one.ends_within(Duration::from_millis(1500)).await, "nobody waited for the command");
        })
    });
}
