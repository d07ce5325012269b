//! What a rewind throws away is kept aside and can be read.

use std::time::Duration;

use crate::common::{BOUND, Member, any_of, run};
use ha::{Lsn, Position, Timeline};
use postgres::command::rewind::{self, Rewound};
use postgres::diverged::{self, Contents};
use postgres::history::History;
use postgres::process::Program;
use postgres::promote;

#[test]
fn the_diverged_log_survives_the_rewind() {
    run(module_path!(), "the_diverged_log_survives_the_rewind", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let mut two = Member::standby_of(&mut one, 2).await;
            one.set_names(any_of(&[&two])).await;
            one.client().await.batch_execute("CREATE TABLE public.t AS SELECT 1 AS x").await.unwrap();
            let end = two.seal().await;
            // Never acknowledged, and worth a look later: it spans several segments.
            let emit = "SELECT pg_logical_emit_message(false, 'lost', repeat('x', 1000000)) FROM generate_series(1, 20)";
            let session = one.session().await;
            session.rows("diverge", emit, &[]).await.unwrap();
            session
                .rows("diverge", "SELECT pg_logical_emit_message(true, 'lost', 'last')", &[])
                .await
                .unwrap();
            let written = one.flushed().await;
            drop(session);
            one.kill().await;

            let session = two.session().await;
            promote::promote(&two.layout, &session, Timeline(2), BOUND).await.unwrap();
            promote::checkpoint(&two.layout, BOUND).await.unwrap().unwrap();
            two.admit(one.incarnation).await;
            let leader = History::load(&two.layout.wal(), Timeline(2)).unwrap().unwrap();
            let own = History::load(&one.layout.wal(), Timeline(1)).unwrap().unwrap();
            let fork = leader.common_position(&own).unwrap();
            assert_eq!(fork, Position { timeline: Timeline(1), lsn: end.lsn });

            let segment = one.control().await.segment;
            let kept = diverged::keep_aside(&one.layout, segment, Some(fork), diverged::LIMIT)
                .await
                .unwrap()
                .expect("it has diverged");
            let Contents::Log(manifest) = &kept.contents else { panic!("{kept:?}") };
            assert!(manifest.is_complete() && manifest.files.len() >= 2, "{manifest:?}");

            one.settings.write(&one.layout).await.unwrap();
            postgres::server::clear_remains(&one.layout).unwrap();
            let bound = Duration::from_secs(120);
            let upstream = two.upstream();
            let found =
                rewind::rewind(&lab.binaries, &one.layout, &upstream, one.incarnation, bound).await.unwrap();
            assert_eq!(found, Rewound::From { diverged: Some((fork.timeline, fork.lsn)) });
            one.start_standby(Some(two.upstream())).await;
            one.wait_replayed(two.flushed().await).await;

            // It is reported on, and every lost record can be read from it.
            assert_eq!(diverged::kept(&one.layout).await.unwrap(), std::slice::from_ref(&kept));
            let mut last = Lsn(0);
            let program = Program::new(lab.binaries.program("pg_waldump"))
                .option("--path", &kept.path)
                .option("--timeline", "1")
                .option("--start", fork.lsn.to_string());
            let read = program.run_any(BOUND, |_| {}).await.unwrap();
            let text = String::from_utf8_lossy(&read.stdout);
            for line in text.lines() {
                if let Some((lsn, _)) = line.split_once("lsn: ").and_then(|(_, rest)| rest.split_once(',')) {
                    last = lsn.parse().unwrap();
                }
            }
            assert!(last >= Lsn(written.0 - 512) && last < written, "{last}, written up to {written}");
            assert!(text.matches("lost").count() >= 21 || text.lines().count() > 20, "{}", text.len());
            assert!(diverged::let_go(&one.layout, &kept.name).await.unwrap());
            assert!(diverged::kept(&one.layout).await.unwrap().is_empty());
        })
    });
}
