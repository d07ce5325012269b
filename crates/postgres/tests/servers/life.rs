//! A member's life on real servers: born, cloned, promoted to a chosen timeline, rewound, following.

use std::time::Duration;

use crate::common::{BOUND, Member, any_of, run};
use ha::Timeline;
use postgres::command::rewind::{self, Rewound};
use postgres::history::{History, Relation, plant};
use postgres::promote;
use postgres::replication::{slots, standbys};
use postgres::server::{Observation, StopMode};

#[test]
fn a_clone_streams_and_acknowledges_under_its_own_name() {
    run(module_path!(), "a_clone_streams_and_acknowledges_under_its_own_name", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let Observation::Primary(seen) = one.observe().await else { panic!("no primary") };
            assert_eq!((seen.timeline, seen.control_timeline), (Timeline(1), Timeline(1)));
            assert!(seen.names_shown.contains("matriarch_nobody"), "{}", seen.names_shown);

            let mut two = Member::standby_of(&mut one, 2).await;
            one.set_names(any_of(&[&two])).await;
            let client = one.client().await;
            client.batch_execute("CREATE TABLE public.t (x int)").await.unwrap();
            client.execute("INSERT INTO public.t VALUES (1)", &[]).await.unwrap();

            let flushed = one.flushed().await;
            two.wait_replayed(flushed).await;
            let session = one.session().await;
            let rows = standbys::walsenders(&session).await.unwrap();
            assert_eq!(rows.len(), 1, "{rows:?}");
            assert_eq!(rows[0].member(), Some(two.incarnation));
            let slot = &slots::slots(&session).await.unwrap()[0];
            assert!(slot.active && slot.member == two.incarnation && !slot.is_lost(), "{slot:?}");

            let Observation::Standby(seen) = two.observe().await else { panic!("no standby") };
            assert_eq!(seen.timeline, Timeline(1));
            assert_eq!(seen.upstream_host.as_deref(), Some("pg.test"));
            assert_eq!(two.count("t").await, 1);

            // An active slot is never dropped, an idle one of a stranger is.
            let nobody = std::collections::BTreeSet::new();
            let outcome = slots::drop_slots_except(&session, &nobody).await.unwrap();
            assert_eq!((outcome.in_use.len(), outcome.dropped.len()), (1, 0), "{outcome:?}");
            two.stop(StopMode::Fast).await;
            assert!(matches!(two.observe().await, Observation::NotListening));
            one.stop(StopMode::Immediate).await;
        })
    });
}

#[test]
fn p11_p22_a_chosen_timeline_is_reached_and_the_old_master_rewinds_to_it() {
    run(module_path!(), "p11_p22_a_chosen_timeline_is_reached_and_the_old_master_rewinds_to_it", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let mut two = Member::standby_of(&mut one, 2).await;
            let mut three = Member::standby_of(&mut one, 3).await;
            one.set_names(any_of(&[&two, &three])).await;
            one.client().await.batch_execute("CREATE TABLE public.t AS SELECT 1 AS x").await.unwrap();
            let acknowledged = one.flushed().await;

            let two_end = two.seal().await;
            let three_end = three.seal().await;
            let end = two_end.max(three_end);
            assert!(end.lsn >= acknowledged, "{end} does not hold {acknowledged}");
            // Written and never acknowledged: this is what the rewind must throw away.
            let diverging = one.client().await;
            let never = tokio::spawn(async move {
                let _ = diverging.batch_execute("INSERT INTO public.t SELECT generate_series(2, 1000)").await;
            });
            while one.flushed().await <= end.lsn {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let written = one.flushed().await;
            one.kill().await;
            never.await.unwrap();

            let (mut winner, mut other) = if two_end >= three_end { (two, three) } else { (three, two) };
            let wal = winner.layout.wal();
            let planted = plant::plan(&wal, end.timeline, Timeline(7)).unwrap();
            assert_eq!(planted.len(), 5);
            plant::plant(&wal, end, &planted).unwrap();
            winner.settings.protocol.names = any_of(&[&other]);
            winner.settings.write_protocol(&winner.layout).await.unwrap();
            let session = winner.session().await;
            postgres::reload::reload(&winner.layout, &session, BOUND).await.unwrap();
            let promoted = promote::promote(&winner.layout, &session, Timeline(7), BOUND).await.unwrap();
            promote::checkpoint(&winner.layout, BOUND).await.unwrap().unwrap();
            assert_eq!(promote::control_timeline(&session).await.unwrap(), Timeline(7));

            let history = History::load(&wal, Timeline(7)).unwrap().unwrap();
            assert_eq!(history.fork_of(Timeline(1)), Some(end.lsn), "{history:?}");

            // The other one is a prefix and follows by a reload.
            winner.admit(other.incarnation).await;
            winner.admit(one.incarnation).await;
            let other_end = other.end_of_wal().await;
            assert_eq!(history.relation_of(other_end, None), Relation::Prefix);
            other.settings.protocol.upstream = Some(winner.upstream());
            let other_session = other.session().await;
            postgres::follow::follow(&other.layout, &other_session, &other.settings, BOUND).await.unwrap();
            other.wait_replayed(promoted.first_record).await;
            let on_seven =
                |o: &Observation| matches!(o, Observation::Standby(s) if s.timeline == Timeline(7));
            other.wait_for("timeline 7", on_seven).await;
            let rows = standbys::walsenders(&session).await.unwrap();
            assert!(
                standbys::flushed_by(&rows, promoted.first_record).contains(&other.incarnation),
                "{rows:?}"
            );

            // The old master has more than the fork: it must rewind, and then follows.
            let mut mine = end;
            mine.lsn = written;
            assert!(matches!(history.relation_of(mine, None), Relation::Diverged { .. }));
            one.settings.write(&one.layout).await.unwrap();
            postgres::server::clear_remains(&one.layout).unwrap();
            let found = rewind::rewind(
                &lab.binaries,
                &one.layout,
                &winner.upstream(),
                one.incarnation,
                Duration::from_secs(120),
            )
            .await
            .unwrap();
            assert!(
                matches!(found, Rewound::From { diverged: Some((Timeline(1), at)) } if at == end.lsn),
                "{found:?}"
            );
            assert!(!rewind::is_dirty(&one.layout));
            one.start_standby(Some(winner.upstream())).await;
            one.wait_replayed(winner.flushed().await).await;
            one.wait_for("timeline 7", on_seven).await;
            assert_eq!(one.count("t").await, 1);
            let fence = promote::fence_xid(&winner.session().await).await.unwrap();
            assert!(fence > 3, "{fence}");
        })
    });
}
