//! A crash after every step: of the agent, whose work is dropped where it waits, and of the server, whose processes are
//! killed. Running the same again finishes the job, or the way back undoes it; what was acknowledged is there.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::common::{BOUND, Lab, Member, any_of, copy_below, each_major};
use ha::{Lsn, Names, Position, Timeline};
use postgres::command::rewind::{RewindError, is_dirty, rewind};
use postgres::history::{History, plant};
use postgres::promise::DurableFile;
use postgres::server::{Observation, StartCommand, clear_remains};
use postgres::{diverged, follow, promote, reload, seal};

/// Works until it has waited this many times, and is then dropped. None when it was. Each place where the work waits is
/// the end of a step: an answer of the server, a file that is durable, a line of a program.
async fn cut_short<T>(work: impl Future<Output = T>, waits: usize) -> Option<T> {
    let mut work = pin!(work);
    let mut left = waits;
    poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match work.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The same in a runtime of its own, as an agent has one: what it does beside the waiting, such as an fsync that began, is
/// done when this returns, and does not meet the next attempt.
fn die_after<T>(work: impl Future<Output = T>, waits: usize) -> Option<T> {
    tokio::task::block_in_place(|| {
        let agent = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        agent.block_on(cut_short(work, waits))
    })
}

/// Waits until no program works on this directory any more: a killed one may have started another.
async fn wait_for_nobody(data: &Path) {
    let data = data.to_str().unwrap().as_bytes();
    let start = Instant::now();
    loop {
        let on_it = |entry: std::fs::DirEntry| {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            command.windows(data.len()).any(|part| part == data)
        };
        if !std::fs::read_dir("/proc").unwrap().flatten().any(on_it) {
            return;
        }
        assert!(start.elapsed() < BOUND, "somebody works on the directory for ever");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Every early step, then ever fewer: later ones repeat the same loop.
const STEPS: [usize; 12] = [0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 30, 60];

each_major!(a_seal_that_died_after_any_step_is_finished_by_the_next, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let mut two = Member::standby_of(&mut one, 2).await;
    one.set_names(any_of(&[&two])).await;
    let client = one.client().await;
    client.batch_execute("CREATE TABLE public.t (x int)").await.unwrap();
    let mut whole = 0;
    for (round, steps) in STEPS.into_iter().enumerate() {
        client.batch_execute("INSERT INTO public.t VALUES (1)").await.unwrap();
        let acknowledged = one.flushed().await;
        let session = two.session().await;
        let work = seal::stop_receiving(&two.layout, &session, &two.settings, BOUND);
        whole += usize::from(die_after(work, steps).is_some());
        drop(session);
        if round % 2 == 0 {
            // The server dies as well; a member that may be sealed starts without an upstream.
            two.kill().await;
            two.start_standby(None).await;
        }
        let session = two.session().await;
        seal::stop_receiving(&two.layout, &session, &two.settings, BOUND).await.unwrap();
        two.settings.protocol.upstream = None;
        let reader = two.reader().await;
        let work = seal::end_of_wal(&two.layout, &session, &reader, "pg", BOUND);
        let cut = die_after(work, steps);
        let end = two.end_of_wal().await;
        assert!(end.lsn >= acknowledged, "after {steps} steps: {end} < {acknowledged}");
        assert!(cut.is_none_or(|early| early.unwrap() == end));
        assert!(seal::is_silent(&two.layout, &session, "pg").await.unwrap());
        assert_eq!(two.count("t").await, i64::try_from(round).unwrap() + 1);
        two.settings.protocol.upstream = Some(one.upstream());
        follow::follow(&two.layout, &session, &two.settings, BOUND).await.unwrap();
        two.wait_streaming().await;
    }
    assert!(whole < STEPS.len(), "nothing was ever cut short");
});

each_major!(a_seal_that_died_is_undone_by_following_again, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let two = Member::standby_of(&mut one, 2).await;
    one.set_names(any_of(&[&two])).await;
    one.client().await.batch_execute("CREATE TABLE public.t (x int)").await.unwrap();
    for steps in STEPS {
        let session = two.session().await;
        die_after(seal::stop_receiving(&two.layout, &session, &two.settings, BOUND), steps);
        drop(session);
        let session = two.session().await;
        follow::follow(&two.layout, &session, &two.settings, BOUND).await.unwrap();
        let client = one.client().await;
        let insert = client.batch_execute("INSERT INTO public.t VALUES (1)");
        tokio::time::timeout(BOUND, insert).await.expect("acknowledged again").unwrap();
        two.wait_replayed(one.flushed().await).await;
    }
});

/// What a promotion to this timeline needs, up to the promotion itself.
fn prepare(member: &Member, end: Position, target: Timeline) {
    let wal = member.layout.wal();
    let planned = plant::plan(&wal, end.timeline, target).unwrap();
    DurableFile::new(member.layout.state().join("planted.json")).store(&planned).unwrap();
    plant::plant(&wal, end, &planned).unwrap();
}

/// The next start after a crash, as the protocol demands it: planted files go unless the control file shows the
/// timeline that they were for, and a signal file comes.
async fn start_again(member: &mut Member, target: Timeline) -> Position {
    if member.control().await.timeline != target {
        let planted: DurableFile<Vec<Timeline>> =
            DurableFile::new(member.layout.state().join("planted.json"));
        plant::uproot(&member.layout.wal(), &planted.load().unwrap().unwrap_or_default()).unwrap();
    }
    member.start_standby(None).await;
    assert!(matches!(member.observe().await, Observation::Standby(_)), "writable without an authority");
    member.end_of_wal().await
}

each_major!(a_planting_that_died_after_any_file_is_undone, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let mut two = Member::standby_of(&mut one, 2).await;
    let end = two.seal().await;
    one.kill().await;
    let target = Timeline(6);
    for files in 0..=4 {
        let wal = two.layout.wal();
        let planned = plant::plan(&wal, end.timeline, target).unwrap();
        assert_eq!(planned.len(), 4, "an earlier one is left: {planned:?}");
        DurableFile::new(two.layout.state().join("planted.json")).store(&planned).unwrap();
        plant::plant(&wal, end, planned.get(..files).unwrap()).unwrap();
        two.kill().await;
        assert_eq!(start_again(&mut two, target).await, end, "after {files} files");
    }
    prepare(&two, end, target);
    let session = two.session().await;
    promote::promote(&two.layout, &session, target, BOUND).await.unwrap();
});

each_major!(
    a_promotion_that_died_after_any_step_is_no_master_and_the_next_gets_a_new_timeline,
    async |lab| {
        let mut one = Member::primary(&lab, 1).await;
        let mut two = Member::standby_of(&mut one, 2).await;
        one.set_names(any_of(&[&two])).await;
        one.client().await.batch_execute("CREATE TABLE public.t AS SELECT 1 AS x").await.unwrap();
        let mut end = two.seal().await;
        one.kill().await;
        let mut target = Timeline(3);
        let mut completed = 0;
        for steps in [1, 2, 3, 4, 5, 6, 8, 12, 20, usize::MAX] {
            prepare(&two, end, target);
            two.settings.protocol.names = Names::Placeholder;
            two.settings.write_protocol(&two.layout).await.unwrap();
            let session = two.session().await;
            let work = promote::promote(&two.layout, &session, target, BOUND);
            let whole = die_after(work, steps).is_some();
            two.kill().await;
            let again = start_again(&mut two, target).await;
            completed += usize::from(again.timeline == target);
            assert!(again >= end, "{again} lost what was at {end}");
            assert!(again.timeline == end.timeline || again.timeline == target, "{again}");
            assert!(!whole || again.timeline == target, "a promotion that was reported is gone: {again}");
            end = again;
            // Never the same timeline again (P24): the next authority names a higher one.
            target = Timeline(target.0 + 3);
        }
        assert!(completed > 0, "none came that far");
        prepare(&two, end, target);
        let session = two.session().await;
        reload::reload(&two.layout, &session, BOUND).await.unwrap();
        let promoted = promote::promote(&two.layout, &session, target, BOUND).await.unwrap();
        assert!(promoted.first_record > end.lsn);
        assert_eq!(two.count("t").await, 1);
        let history = History::load(&two.layout.wal(), target).unwrap().unwrap();
        assert_eq!(history.fork_of(end.timeline), Some(end.lsn));
    }
);

/// A dead, diverged master and the leader that it must rewind to.
async fn diverged_pair(lab: &Arc<Lab>) -> (Member, Member, Position, Lsn) {
    let mut one = Member::primary(lab, 1).await;
    let mut two = Member::standby_of(&mut one, 2).await;
    one.set_names(any_of(&[&two])).await;
    one.client().await.batch_execute("CREATE TABLE public.t AS SELECT 1 AS x").await.unwrap();
    let end = two.seal().await;
    let lost = "SELECT pg_logical_emit_message(true, 'lost', repeat('x', 3000000))";
    one.session().await.rows("diverge", lost, &[]).await.unwrap();
    let written = one.flushed().await;
    one.kill().await;
    let session = two.session().await;
    promote::promote(&two.layout, &session, Timeline(2), BOUND).await.unwrap();
    promote::checkpoint(&two.layout, BOUND).await.unwrap().unwrap();
    two.admit(one.incarnation).await;
    (one, two, end, written)
}

each_major!(a_rewind_that_died_after_any_step_is_never_started_half_done, async |lab| {
    let (mut one, two, end, written) = diverged_pair(&lab).await;
    assert!(written > end.lsn);
    one.settings.write(&one.layout).await.unwrap();
    clear_remains(&one.layout).unwrap();
    let saved = lab.path().join("saved");
    copy_below(&one.layout.data(), &saved);
    let segment = one.control().await.segment;
    let bound = Duration::from_secs(120);
    let (mut half, mut rebuilt) = (0, 0);
    for steps in [0, 1, 2, 3, 4, 5, 7, 10, 15] {
        std::fs::remove_dir_all(one.layout.data()).unwrap();
        copy_below(&saved, &one.layout.data());
        one.layout.prepare().unwrap();
        let keep = diverged::keep_aside(&one.layout, segment, Some(end), diverged::LIMIT);
        die_after(keep, steps.min(1));
        let kept = diverged::keep_aside(&one.layout, segment, Some(end), diverged::LIMIT).await.unwrap();
        assert!(kept.is_some());
        assert_eq!(
            diverged::kept(&one.layout).await.unwrap().len(),
            1,
            "one copy, however often it was made"
        );

        let upstream = two.upstream();
        let work = rewind(&lab.binaries, &one.layout, &upstream, one.incarnation, bound);
        let whole = die_after(work, steps).is_some();
        wait_for_nobody(&one.layout.data()).await;
        if is_dirty(&one.layout) {
            half += 1;
            assert!(!whole);
            let refused = StartCommand::new(&lab.binaries, &one.layout);
            assert!(refused.is_err(), "a directory that is half rewound would be started");
        }
        match rewind(&lab.binaries, &one.layout, &upstream, one.incarnation, bound).await {
            Ok(_) => {}
            Err(RewindError::Untouched(_) | RewindError::Run(_)) => {
                // Beyond mending: it is replaced, and its log is kept.
                rebuilt += 1;
                continue;
            }
            Err(other) => panic!("{other:?}"),
        }
        assert!(!is_dirty(&one.layout));
        one.start_standby(Some(two.upstream())).await;
        one.wait_replayed(two.flushed().await).await;
        one.wait_for("timeline 2", |o| matches!(o, Observation::Standby(s) if s.timeline == Timeline(2)))
            .await;
        assert_eq!(one.count("t").await, 1);
        one.kill().await;
    }
    println!("{half} were half done, {rebuilt} beyond mending");
    assert!(half > 0, "none was cut short");
});
