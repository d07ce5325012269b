//! P11, P17, P18, P21: what a promotion does.

use std::time::{Duration, Instant};

use crate::common::{BOUND, INSERT, Member, any_of, each_major};
use ha::{Names, Position, Timeline};
use postgres::history::{History, file_name};
use postgres::promote::{PromoteError, promote};
use postgres::server::Observation;

/// Promotes by hand and gives the timeline that PostgreSQL chose.
async fn chosen(member: &Member) -> Timeline {
    let session = member.session().await;
    match promote(&member.layout, &session, Timeline(999), BOUND).await {
        Err(PromoteError::WrongTimeline { found, .. }) => found,
        other => panic!("{other:?}"),
    }
}

each_major!(p11_two_promotions_from_one_point_choose_the_same_timeline, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let mut two = Member::standby_of(&mut one, 2).await;
    let mut three = Member::standby_of(&mut one, 3).await;
    one.kill().await;
    let (left, right) = (two.seal().await, three.seal().await);
    assert_eq!((left.timeline, right.timeline), (Timeline(1), Timeline(1)));
    assert_eq!((chosen(&two).await, chosen(&three).await), (Timeline(2), Timeline(2)));
});

each_major!(p11_a_gap_is_chosen_and_an_empty_file_stops_the_server, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let mut two = Member::standby_of(&mut one, 2).await;
    let mut three = Member::standby_of(&mut one, 3).await;
    let end = two.seal().await;
    let plant = |member: &Member, timeline: u32, end: Position| {
        let history = History::first().child(Timeline(timeline), end.lsn);
        let path = member.layout.wal().join(file_name(Timeline(timeline)));
        std::fs::write(path, history.render()).unwrap();
    };
    plant(&two, 2, end);
    plant(&two, 4, end);
    assert_eq!(chosen(&two).await, Timeline(3), "the gap");

    three.seal().await;
    three.kill().await;
    let empty = three.layout.wal().join(file_name(Timeline(2)));
    std::fs::write(&empty, "").unwrap();
    three.try_start_standby().await;
    // It looks for its own checkpoint on a timeline that has no past, for ever.
    assert!(!three.ends_within(Duration::from_secs(1)).await);
    assert!(matches!(three.observe().await, Observation::Starting { .. }), "it runs with an empty history");
    three.kill().await;
    std::fs::remove_file(empty).unwrap();
    three.start_standby(None).await;
    three.end_of_wal().await;
});

each_major!(p17_a_slow_restore_command_adds_its_run_time_to_a_promotion, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let mut two = Member::standby_of(&mut one, 2).await;
    let mut three = Member::standby_of(&mut one, 3).await;
    one.kill().await;
    let mut times = Vec::new();
    for (member, command) in [(&mut two, "/bin/sleep 0.7; false"), (&mut three, "")] {
        let file = member.layout.data().join("postgresql.auto.conf");
        let mut text = std::fs::read_to_string(&file).unwrap();
        text = format!("{text}restore_command = '{command}'\n");
        std::fs::write(file, text).unwrap();
        let session = member.session().await;
        postgres::reload::reload(&member.layout, &session, BOUND).await.unwrap();
        let start = Instant::now();
        chosen(member).await;
        times.push(start.elapsed());
    }
    println!("promoted in {times:?}");
    // The history of the new timeline and the last segment are asked for.
    assert!(times[0] >= Duration::from_millis(700), "{times:?}");
    assert!(times[1] < times[0], "{times:?}");
});

each_major!(p18_waiting_inside_the_server_polls_at_a_tenth_of_a_second, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let two = Member::standby_of(&mut one, 2).await;
    let session = two.session().await;
    let start = Instant::now();
    let done: bool = session.value("promote", "SELECT pg_promote(true, 20)", &[]).await.unwrap();
    assert!(done && start.elapsed() >= Duration::from_millis(99), "{:?}", start.elapsed());
});

each_major!(p21_a_session_open_on_a_hot_standby_survives_its_promotion_and_writes, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let mut two = Member::standby_of(&mut one, 2).await;
    one.set_names(any_of(&[&two])).await;
    one.client().await.batch_execute("CREATE TABLE public.t (x int)").await.unwrap();
    two.wait_replayed(one.flushed().await).await;
    two.set_names(Names::Alone).await;
    let client = two.client().await;
    let refused = client.execute(INSERT, &[]).await.expect_err("read only");
    assert_eq!(refused.code().unwrap().code(), "25006");
    one.kill().await;
    assert_eq!(chosen(&two).await, Timeline(2));
    assert_eq!(client.execute(INSERT, &[]).await.unwrap(), 1, "the same session");
});
