//! Facts of PostgreSQL that the protocol respects and no function of ours changes (§8).

use std::time::Duration;

use crate::common::{BOUND, Member, any_of, run};
use postgres::command::basebackup;
use postgres::server::{Observation, StopMode};

const INSERT: &str = "INSERT INTO public.t VALUES (1)";

/// A commit that nobody acknowledges, left waiting.
async fn waiting_commit(one: &Member) -> tokio::task::JoinHandle<Result<u64, tokio_postgres::Error>> {
    let client = one.client().await;
    let waiting = tokio::spawn(async move { client.execute(INSERT, &[]).await });
    let session = one.session().await;
    let seen = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let start = std::time::Instant::now();
    while session.value::<i64>("look", seen, &[]).await.unwrap() == 0 {
        assert!(start.elapsed() < BOUND, "no commit waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    waiting
}

#[test]
fn p1_p2_p6_a_waiting_commit_is_hidden_here_shown_there_and_cancelling_it_looks_like_success() {
    run(
        module_path!(),
        "p1_p2_p6_a_waiting_commit_is_hidden_here_shown_there_and_cancelling_it_looks_like_success",
        |lab| {
            Box::pin(async move {
                let mut one = Member::primary(&lab, 1).await;
                let two = Member::standby_of(&mut one, 2).await;
                one.session().await.batch("table", "CREATE TABLE public.t (x int)").await.unwrap();
                let waiting = waiting_commit(&one).await;
                two.wait_replayed(one.flushed().await).await;
                assert_eq!((one.count("t").await, two.count("t").await), (0, 1), "P1");
                let cancel =
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
                one.session().await.rows("cancel", cancel, &[]).await.unwrap();
                assert_eq!(waiting.await.unwrap().unwrap(), 1, "P2: success, for an unknown outcome");
                // P6: a restart shows what nobody acknowledged.
                let waiting = waiting_commit(&one).await;
                assert_eq!(one.count("t").await, 1);
                one.kill().await;
                assert!(waiting.await.unwrap().is_err());
                one.start_primary().await;
                assert_eq!(one.count("t").await, 2, "P6");
            })
        },
    );
}

#[test]
fn p3_a_statement_timeout_does_not_end_the_wait_of_a_commit() {
    run(module_path!(), "p3_a_statement_timeout_does_not_end_the_wait_of_a_commit", |lab| {
        Box::pin(async move {
            let one = Member::primary(&lab, 1).await;
            one.session().await.batch("table", "CREATE TABLE public.t (x int)").await.unwrap();
            let client = one.client().await;
            client.batch_execute("SET statement_timeout = '100ms'").await.unwrap();
            let wait = tokio::time::timeout(Duration::from_millis(700), client.execute(INSERT, &[])).await;
            assert!(wait.is_err(), "{wait:?}");
        })
    });
}

#[test]
fn p14_a_clone_does_not_count_as_its_member() {
    run(module_path!(), "p14_a_clone_does_not_count_as_its_member", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            one.session().await.batch("table", "CREATE TABLE public.t (x int)").await.unwrap();
            let two = Member::new(&lab, 2);
            one.admit(two.incarnation).await;
            one.set_names(any_of(&[&two])).await;
            let waiting = waiting_commit(&one).await;
            let upstream = one.upstream();
            let bound = Duration::from_secs(120);
            basebackup::clone_from(&lab.binaries, &two.layout, &upstream, two.incarnation, bound, |_| {})
                .await
                .unwrap();
            assert!(!waiting.is_finished(), "a clone acknowledged a commit");
            waiting.abort();
        })
    });
}

#[test]
fn p23_p24_a_killed_master_is_not_clean_and_a_signal_file_keeps_it_read_only() {
    run(module_path!(), "p23_p24_a_killed_master_is_not_clean_and_a_signal_file_keeps_it_read_only", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            one.kill().await;
            assert!(!one.control().await.state.is_clean());
            one.start_standby(None).await;
            assert!(matches!(one.observe().await, Observation::Standby(_)));
            one.stop(StopMode::Fast).await;
            let state = one.control().await.state;
            assert!(state.is_clean() && state.is_standby(), "{state:?}");
        })
    });
}
