use super::super::fixtures::{id, peer, primary, record, standby, view};
use super::*;

use ha::Timeline;
use ha::record::Handover;

fn seconds(n: u64) -> Instant {
    Instant(n * 1_000_000_000)
}

fn because(reason: Reason) -> Decision {
    Decision { because: vec![reason], suspects: Some(Epoch(1)), ..Decision::default() }
}

fn wall() -> Time {
    Time(jiff::Timestamp::UNIX_EPOCH)
}

/// The record after `pg-0` won over `pg-1` from timeline 1 at 5000.
fn won(asynchronous: bool) -> Record {
    let mut won = record(0, 2);
    (won.timeline, won.fork_lsn) = (Timeline(2), Some(Lsn(5000)));
    won.lease_millis = asynchronous.then_some(15_000);
    won.remember_term(Some(Timeline(1)));
    won
}

fn following(asynchronous: bool, flushed: u64) -> View {
    let mut old = record(1, 1);
    old.lease_millis = asynchronous.then_some(15_000);
    let mut view = view(old, standby(Some(1)));
    view.peers.extend([peer(1, |said| {
        (said.leads, said.flushed) = (Some(Epoch(1)), Some(Lsn(flushed)));
    })]);
    view
}

#[test]
fn a_silent_master_is_lost_since_its_last_sign_of_life_until_the_gate_is_open() {
    let mut failovers = Failovers::default();
    let following = following(false, 9000);
    failovers.observe(&following, &Decision::default(), seconds(10), wall());
    failovers.observe(&following, &because(Reason::LeaderSilent { millis: 2000 }), seconds(12), wall());
    failovers.observe(&following, &because(Reason::LeaderSilent { millis: 2500 }), seconds(13), wall());
    let promoted = view(won(false), primary(Gate::Closed));
    failovers.observe(&promoted, &Decision::default(), seconds(14), wall());
    assert_eq!(failovers.last(), None, "nobody is served yet");
    let open = view(won(false), primary(Gate::Open));
    failovers.observe(&open, &Decision::default(), seconds(15), wall());
    failovers.observe(&open, &Decision::default(), seconds(99), wall());
    let last = failovers.last().unwrap();
    assert_eq!((last.from.as_deref(), last.to.as_str()), (Some("pg-1"), "pg-0"));
    assert_eq!((last.duration_ms, last.lost_bytes), (Some(5000), Some(0)), "quorum loses nothing");
    assert!(last.reason.contains("not heard"), "{}", last.reason);
}

#[test]
fn a_suspicion_that_passed_is_forgotten_and_a_planned_change_is_called_so() {
    let mut failovers = Failovers::default();
    let mut following = following(false, 9000);
    failovers.observe(&following, &because(Reason::LeaderReleased), seconds(1), wall());
    failovers.observe(&following, &Decision::default(), seconds(2), wall());
    let RecordView::Known { record, .. } = &mut following.record else { panic!() };
    record.handover = Some(Handover { to: None });
    failovers.observe(&following, &Decision::default(), seconds(50), wall());
    failovers.observe(&following, &because(Reason::LeaderReleased), seconds(51), wall());
    let open = view(won(false), primary(Gate::Open));
    failovers.observe(&open, &Decision::default(), seconds(52), wall());
    let last = failovers.last().unwrap();
    assert_eq!((last.reason.as_str(), last.duration_ms), ("planned hand-over", Some(2000)));
}

#[test]
fn asynchronous_loss_is_what_the_master_had_said_and_then_what_it_shows() {
    let mut failovers = Failovers::default();
    failovers.observe(&following(true, 5300), &Decision::default(), seconds(1), wall());
    failovers.observe(&following(true, 5100), &because(Reason::LeaderReleased), seconds(2), wall());
    let mut open = view(won(true), primary(Gate::Open));
    failovers.observe(&open, &Decision::default(), seconds(3), wall());
    assert_eq!(failovers.last().unwrap().lost_bytes, Some(300));
    let back = |timeline| {
        peer(1, move |said| (said.timeline, said.flushed) = (Some(Timeline(timeline)), Some(Lsn(5700))))
    };
    open.peers.extend([back(2)]);
    failovers.observe(&open, &Decision::default(), seconds(4), wall());
    assert_eq!(failovers.last().unwrap().lost_bytes, Some(300), "it follows the new timeline");
    open.peers.extend([back(1)]);
    failovers.observe(&open, &Decision::default(), seconds(5), wall());
    assert_eq!(failovers.last().unwrap().lost_bytes, Some(700));
}

#[test]
fn what_was_not_seen_is_not_invented() {
    let mut failovers = Failovers::default();
    let open = view(won(true), primary(Gate::Open));
    failovers.observe(&open, &Decision::default(), seconds(3), wall());
    assert_eq!(failovers.last(), None, "a restarted agent leaves what the status says");
    let mut silent = following(true, 1);
    silent.peers.clear();
    failovers.observe(&silent, &Decision::default(), seconds(4), wall());
    failovers.observe(&open, &Decision::default(), seconds(5), wall());
    let last = failovers.last().unwrap();
    assert_eq!((last.duration_ms, last.lost_bytes), (None, None));
    assert_eq!(id(1).name.0, last.from.clone().unwrap());
}

#[test]
fn a_forced_promotion_tells_what_is_known_to_be_lost() {
    let mut forced = won(false);
    let kept = ha::Position { timeline: Timeline(1), lsn: Lsn(5000) };
    forced.data_loss = Some(DataLoss {
        epoch: Epoch(2),
        member: id(0),
        kept,
        former: Some(id(1).name),
        known_bytes: Some(100),
    });
    for (flushed, lost) in [(Some(9000), 4000), (None, 100)] {
        let mut failovers = Failovers::default();
        let mut following = following(false, flushed.unwrap_or_default());
        if flushed.is_none() {
            following.peers.clear();
        }
        failovers.observe(&following, &because(Reason::LeaderSilent { millis: 2000 }), seconds(1), wall());
        let open = view(forced.clone(), primary(Gate::Open));
        failovers.observe(&open, &Decision::default(), seconds(9), wall());
        let last = failovers.last().unwrap();
        assert_eq!(last.lost_bytes, Some(lost));
        assert!(last.reason.contains("forced"), "{}", last.reason);
    }
    // A later term on another timeline lost nothing more.
    let mut later = forced.clone();
    (later.epoch, later.timeline) = (Epoch(3), Timeline(3));
    later.remember_term(Some(Timeline(2)));
    let mut failovers = Failovers::default();
    failovers.observe(&following(false, 9000), &Decision::default(), seconds(1), wall());
    failovers.observe(&view(later, primary(Gate::Open)), &Decision::default(), seconds(9), wall());
    assert_eq!(failovers.last().unwrap().lost_bytes, Some(0));
}
