//! P1–P6, P10, P15, P16: what a commit that waits for standbys is, and what releases it.

use std::future::poll_fn;
use std::time::Duration;

use crate::common::{BOUND, INSERT, Member, any_of, each_major};
use ha::Names;
use tokio_postgres::AsyncMessage;

/// Long enough for an answer that comes at all.
const A_WHILE: Duration = Duration::from_millis(500);

const CANCEL: &str = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

each_major!(p01_a_waiting_commit_is_hidden_on_the_master_and_shown_on_a_standby, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let two = Member::standby_of(&mut one, 2).await;
    one.make_table().await;
    let waiting = one.waiting_commit().await;
    two.wait_replayed(one.flushed().await).await;
    assert_eq!((one.count("t").await, two.count("t").await), (0, 1));
    assert!(!waiting.is_finished());
});

each_major!(p02_cancelling_the_wait_looks_like_success_but_for_a_warning, async |lab| {
    let one = Member::primary(&lab, 1).await;
    one.make_table().await;
    let (client, mut connection) = tokio_postgres::Config::new()
        .host_path(one.layout.run())
        .port(one.layout.port())
        .user("postgres")
        .application_name("client")
        .connect(tokio_postgres::NoTls)
        .await
        .unwrap();
    let notices = tokio::spawn(async move {
        let mut notices = Vec::new();
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                notices.push((notice.severity().to_owned(), notice.message().to_owned()));
            }
        }
        notices
    });
    let waiting = tokio::spawn(async move { client.execute(INSERT, &[]).await });
    one.wait_for_waiting_commit().await;
    one.session().await.rows("cancel", CANCEL, &[]).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 1, "success, for an unknown outcome");
    let notices = notices.await.unwrap();
    assert!(
        notices
            .iter()
            .any(|(s, m)| s == "WARNING" && m.contains("canceling wait for synchronous replication")),
        "{notices:?}"
    );
    assert_eq!(one.count("t").await, 1);
});

each_major!(p03_a_statement_timeout_ends_the_wait_inside_do_and_not_of_a_plain_commit, async |lab| {
    let one = Member::primary(&lab, 1).await;
    one.make_table().await;
    let client = one.client().await;
    client.batch_execute("SET statement_timeout = '100ms'").await.unwrap();
    let wait = tokio::time::timeout(A_WHILE, client.execute(INSERT, &[])).await;
    assert!(wait.is_err(), "{wait:?}");
    let other = one.client().await;
    other.batch_execute("SET statement_timeout = '100ms'").await.unwrap();
    let inside = "DO $$ BEGIN INSERT INTO public.t VALUES (2); COMMIT; END $$";
    let ended = tokio::time::timeout(BOUND, other.batch_execute(inside)).await;
    assert!(ended.is_ok(), "the wait inside DO goes on");
    assert_eq!(one.count("t").await, 1, "its commit is local; that of the plain one still waits");
});

each_major!(p05_an_empty_value_releases_every_waiter_as_acknowledged, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    one.make_table().await;
    let waiting = [one.waiting_commit().await, one.waiting_commit().await];
    one.set_names(Names::Alone).await;
    for waiter in waiting {
        let answer = tokio::time::timeout(BOUND, waiter).await.expect("released").unwrap();
        assert_eq!(answer.unwrap(), 1, "acknowledged by nobody");
    }
});

each_major!(p06_a_restart_and_a_promotion_show_what_nobody_acknowledged, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let two = Member::standby_of(&mut one, 2).await;
    one.make_table().await;
    let waiting = one.waiting_commit().await;
    two.wait_replayed(one.flushed().await).await;
    assert_eq!(one.count("t").await, 0);
    one.kill().await;
    assert!(waiting.await.unwrap().is_err());
    one.start_primary().await;
    assert_eq!(one.count("t").await, 1, "after a restart");
    let session = two.session().await;
    session.rows("promote", "SELECT pg_promote(true)", &[]).await.unwrap();
    let client = two.client().await;
    let seen: i64 = client.query_one("SELECT count(*) FROM public.t", &[]).await.unwrap().get(0);
    assert_eq!(seen, 1, "to clients of a promoted standby");
});

each_major!(p10_the_masters_own_position_moves_without_any_acknowledgement, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let absent = Member::new(&lab, 9);
    one.set_names(any_of(&[&absent])).await;
    one.make_table().await;
    let waiting = one.waiting_commit().await;
    let before = one.flushed().await;
    one.session().await.batch("checkpoint", "CHECKPOINT").await.unwrap();
    let after = one.flushed().await;
    assert!(after > before, "{after} is not beyond {before}");
    assert!(!waiting.is_finished(), "nobody acknowledged");
});

each_major!(p15_alter_system_beats_the_rendered_file_where_it_is_allowed_and_is_noticed, async |lab| {
    let one = Member::primary(&lab, 1).await;
    let session = one.session().await;
    assert!(!one.settings.write_protocol(&one.layout).await.unwrap(), "as rendered");
    let altered = session.batch("alter", "ALTER SYSTEM SET synchronous_commit = off").await;
    let refused = postgres::facts::alter_system_can_be_refused(lab.binaries.major());
    assert_eq!(altered.is_err(), refused, "{altered:?}");
    let file = std::fs::read_to_string(one.layout.data().join("postgresql.auto.conf")).unwrap();
    assert_eq!(file.contains("synchronous_commit = 'off'"), !refused);
    assert_eq!(one.settings.write_protocol(&one.layout).await.unwrap(), !refused, "noticed and mended");
});

each_major!(p16_a_standby_and_the_master_show_two_commits_in_different_orders, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let two = Member::standby_of(&mut one, 2).await;
    one.make_table().await;
    let waiting = one.waiting_commit().await;
    two.wait_replayed(one.flushed().await).await;
    two.session().await.rows("pause", "SELECT pg_wal_replay_pause()", &[]).await.unwrap();
    let client = one.client().await;
    let second = "SET synchronous_commit = local; INSERT INTO public.t VALUES (2)";
    client.batch_execute(second).await.unwrap();
    let sum = "SELECT coalesce(sum(x), 0)::bigint FROM public.t";
    let on_master: i64 = one.session().await.value("read", sum, &[]).await.unwrap();
    let on_standby: i64 = two.session().await.value("read", sum, &[]).await.unwrap();
    assert_eq!((on_master, on_standby), (2, 1), "each sees the one that the other lacks");
    assert!(!waiting.is_finished());
});
