//! P12, P20, P22: who can follow whom, and who must rewind.

use std::time::Duration;

use crate::common::{BOUND, Member, any_of, each_major};
use ha::Timeline;
use postgres::command::basebackup::{CloneError, clone_from};
use postgres::command::rewind::{Rewound, rewind};
use postgres::facts::rewind_sees_a_promotion_before_its_checkpoint;
use postgres::promote;
use postgres::server::Observation;

const REWIND: Duration = Duration::from_secs(120);

/// A master that wrote what nobody acknowledged, dead, and its promoted successor, which has not checkpointed yet.
async fn diverged(lab: &std::sync::Arc<crate::common::Lab>) -> (Member, Member) {
    let mut one = Member::primary(lab, 1).await;
    let mut two = Member::standby_of(&mut one, 2).await;
    one.set_names(any_of(&[&two])).await;
    one.client().await.batch_execute("CREATE TABLE public.t AS SELECT 1 AS x").await.unwrap();
    two.wait_replayed(one.flushed().await).await;
    let end = two.seal().await;
    let waiting = one.waiting_commit().await;
    assert!(one.flushed().await > end.lsn);
    one.kill().await;
    assert!(waiting.await.unwrap().is_err());
    (one, two)
}

each_major!(p12_a_standby_ahead_of_the_fork_does_not_follow, async |lab| {
    let (mut one, mut two) = diverged(&lab).await;
    let session = two.session().await;
    promote::promote(&two.layout, &session, Timeline(2), BOUND).await.unwrap();
    two.admit(one.incarnation).await;
    one.try_start_standby_of(&two).await;
    // It either does not start, or begins to stream again and again and gets nothing: for moments it says "streaming".
    let ended = one.ends_within(Duration::from_secs(2)).await;
    if !ended {
        let Observation::Standby(seen) = one.observe().await else { panic!("no standby") };
        assert_eq!(
            (seen.timeline, seen.received_timeline.unwrap_or(Timeline(1))),
            (Timeline(1), Timeline(1))
        );
        assert_eq!(one.count("t").await, 2, "it shows what its leader never had");
        one.kill().await;
    }
    let log = one.log();
    assert!(
        log.contains("before current recovery point")
            || log.contains("is not a child of this server's history")
            || log.contains("is not in this server's history"),
        "ended: {ended}\n{log}"
    );
});

each_major!(p20_only_the_named_members_own_certificate_will_do, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let two = Member::new(&lab, 2);
    one.admit(two.incarnation).await;
    let mut upstream = one.upstream();
    "pgwrite.test".clone_into(&mut upstream.server_name);
    let clone = clone_from(&lab.binaries, &two.layout, &upstream, two.incarnation, BOUND, |_| {}).await;
    let Err(CloneError::Run(error)) = clone else { panic!("{clone:?}") };
    assert!(error.to_string().contains("does not match host name \"pgwrite.test\""), "{error}");
    assert!(!two.layout.has_data());
});

each_major!(p22_before_its_first_checkpoint_a_promoted_source_is_not_recognised_by_all, async |lab| {
    let (mut one, mut two) = diverged(&lab).await;
    // The checkpoint that a promotion asks for must not happen meanwhile.
    let checkpointer = two.process("checkpointer").await;
    crate::common::send(checkpointer, rustix::process::Signal::STOP);
    let session = two.session().await;
    promote::promote(&two.layout, &session, Timeline(2), BOUND).await.unwrap();
    assert_eq!(promote::control_timeline(&session).await.unwrap(), Timeline(1));
    drop(session);
    two.settings.hba.members.insert(one.incarnation);
    let session = two.session().await;
    let members = std::collections::BTreeSet::from([one.incarnation]);
    postgres::roles::ensure_member_roles(&session, &members).await.unwrap();
    postgres::gate::admit_members(&two.layout, &session, &two.settings, BOUND).await.unwrap();
    postgres::server::clear_remains(&one.layout).unwrap();
    let found = rewind(&lab.binaries, &one.layout, &two.upstream(), one.incarnation, REWIND).await.unwrap();
    let recognised = found != Rewound::NotRequired;
    assert_eq!(recognised, rewind_sees_a_promotion_before_its_checkpoint(lab.binaries.major()), "{found:?}");
    crate::common::send(checkpointer, rustix::process::Signal::CONT);
    // After it, every major does.
    promote::checkpoint(&two.layout, BOUND).await.unwrap().unwrap();
    assert_eq!(promote::control_timeline(&session).await.unwrap(), Timeline(2));
    if !recognised {
        let found =
            rewind(&lab.binaries, &one.layout, &two.upstream(), one.incarnation, REWIND).await.unwrap();
        assert!(matches!(found, Rewound::From { .. }), "{found:?}");
    }
    postgres::replication::slots::ensure_slots(&session, &members).await.unwrap();
    one.start_standby(Some(two.upstream())).await;
    one.wait_replayed(two.flushed().await).await;
    assert_eq!(one.count("t").await, 1, "what nobody acknowledged is gone");
});
