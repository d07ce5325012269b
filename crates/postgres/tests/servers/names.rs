//! P4, P5 and rule 7a: names are in force only when a commit is seen waiting.

use std::time::Duration;

use crate::common::{BOUND, Member, any_of, run};
use ha::Names;
use postgres::replication::names::{NamesError, prove_waiting, put_in_force};
use postgres::replication::standbys;
use postgres::session::SqlError;
use rustix::process::Signal;

const INSERT: &str = "INSERT INTO public.t VALUES (1)";

#[test]
fn p05_a_value_that_show_displays_is_not_in_force_while_the_checkpointer_stalls() {
    run(
        module_path!(),
        "p05_a_value_that_show_displays_is_not_in_force_while_the_checkpointer_stalls",
        |lab| {
            Box::pin(async move {
                let mut one = Member::primary(&lab, 1).await;
                one.set_names(Names::Alone).await;
                let client = one.client().await;
                client.batch_execute("CREATE TABLE public.t (x int)").await.unwrap();
                let checkpointer = one.process("checkpointer").await;
                crate::common::send(checkpointer, Signal::STOP);
                one.settings.protocol.names = Names::Placeholder;
                let session = one.session().await;
                let short = Duration::from_millis(700);
                let result = put_in_force(&one.layout, &session, &one.settings, &Names::Alone, short).await;
                // The bound may pass in the middle of a statement: as little a proof.
                assert!(
                    matches!(
                        result,
                        Err(NamesError::NotInForce { .. } | NamesError::Sql(SqlError::Timeout { .. }))
                    ),
                    "{result:?}"
                );
                let shown: String =
                    one.session().await.value("show", "SHOW synchronous_standby_names", &[]).await.unwrap();
                assert!(shown.contains("matriarch_nobody"), "{shown}");
                client.execute(INSERT, &[]).await.expect("acknowledged with nobody attached");

                crate::common::send(checkpointer, Signal::CONT);
                prove_waiting(&one.layout, &session, BOUND).await.unwrap();
                let waits =
                    tokio::time::timeout(Duration::from_millis(500), client.execute(INSERT, &[])).await;
                assert!(waits.is_err(), "a commit was acknowledged by nobody: {waits:?}");
            })
        },
    );
}

#[test]
fn i7_real_names_follow_the_proof_and_release_the_right_commits() {
    run(module_path!(), "i7_real_names_follow_the_proof_and_release_the_right_commits", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let two = Member::standby_of(&mut one, 2).await;
            one.set_names(Names::Alone).await;
            one.client().await.batch_execute("CREATE TABLE public.t (x int)").await.unwrap();
            one.set_names(any_of(&[&two])).await;
            let session = one.session().await;
            let ended = standbys::end_walsenders(&session, None).await.unwrap();
            assert_eq!(ended, 1);
            let client = one.client().await;
            tokio::time::timeout(BOUND, client.execute(INSERT, &[])).await.expect("acknowledged").unwrap();
            // Nobody of the electorate is there: commits wait, and an empty value would release them.
            let absent = Member::new(&lab, 9);
            one.set_names(any_of(&[&absent])).await;
            let waits = tokio::time::timeout(Duration::from_millis(500), client.execute(INSERT, &[])).await;
            assert!(waits.is_err(), "{waits:?}");
        })
    });
}

#[test]
fn p04_a_terminated_wait_is_no_success() {
    run(module_path!(), "p04_a_terminated_wait_is_no_success", |lab| {
        Box::pin(async move {
            let one = Member::primary(&lab, 1).await;
            one.session().await.batch("table", "CREATE TABLE public.t (x int)").await.unwrap();
            let client = one.client().await;
            let waiting = tokio::spawn(async move { client.execute(INSERT, &[]).await });
            let session = one.session().await;
            let end =
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            while session.value::<i64>("end", end, &[]).await.unwrap() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(waiting.await.unwrap().is_err());
            assert_eq!(one.count("t").await, 1, "the commit stays local");
        })
    });
}
