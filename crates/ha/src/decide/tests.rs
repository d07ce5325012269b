//! One test per rule, on a cluster of three: `pg-0` led epoch 1, `pg-1` and `pg-2` flush for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::decide;
use crate::announcement::{Announcement, Condition, SealReport};
use crate::decision::{Action, Decision, Purpose, Reason, StopMode, Swap};
use crate::electorate::Electorate;
use crate::memory::Memory;
use crate::promise::{Bootstrap, Promise};
use crate::record::{LeaderId, Phase, Record};
use crate::settings::Settings;
use crate::types::{
    Boot, Epoch, Incarnation, Instant, Lsn, MemberId, MemberName, Position, Timeline, Version,
};
use crate::view::{
    Gate, Names, Peer, Postgres, Primary, RecordView, Route, Standby, Stopped, Upstream, View, Walsender,
};

const NOW: Instant = Instant(1_000_000_000_000);

fn id(n: u64) -> MemberId {
    MemberId { name: MemberName(format!("pg-{n}")), incarnation: Incarnation(n) }
}

fn life(n: u64) -> LeaderId {
    LeaderId {
        name: id(n).name,
        pod_uid: format!("uid-{n}"),
        boot: Boot(n),
        incarnation: Incarnation(n),
        node: format!("node-{n}"),
        stopped: false,
    }
}

fn at(timeline: u32, lsn: u64) -> Position {
    Position { timeline: Timeline(timeline), lsn: Lsn(lsn) }
}

fn electorate(leader: u64, members: &[u64], acks: u32) -> Electorate {
    Electorate::new(id(leader), members.iter().map(|n| id(*n)).collect(), acks)
}

fn record() -> Record {
    let mut record = Record {
        phase: Phase::Running,
        epoch: Epoch(1),
        leader: Some(life(0)),
        timeline: Timeline(1),
        electorates: vec![electorate(0, &[1, 2], 1)],
        fence_xid: Some(3),
        ..Record::uninitialised("cluster")
    };
    record.remember_term(None);
    record
}

fn known(record: Record) -> RecordView {
    RecordView::Known {
        record: Box::new(record),
        version: Version("7".into()),
        lease_uid: "lease".into(),
        confirmed_at: NOW,
        changed_at: NOW,
    }
}

fn view(n: u64, record: Record, postgres: Postgres) -> View {
    let promise = Promise { bootstrap: Bootstrap::Member, ..Promise::new(Incarnation(n), "cluster") };
    View {
        member: id(n),
        pod_uid: format!("uid-{n}"),
        boot: Boot(n),
        node: format!("node-{n}"),
        holds_volume_lock: true,
        terminating: false,
        settings: Settings::new((0..3).map(|n| id(n).name)),
        record: known(record),
        promise,
        postgres,
        peers: BTreeMap::new(),
        route: Route::Elsewhere,
        swapping: false,
    }
}

fn said(n: u64) -> Announcement {
    Announcement {
        member: id(n),
        pod_uid: format!("uid-{n}"),
        boot: Boot(n),
        address: format!("10.0.0.{n}"),
        sent_at: Instant(1),
        record_epoch: Epoch(1),
        record_generation: 0,
        condition: Condition::Standby,
        leads: None,
        timeline: Some(Timeline(1)),
        sealed_below: Epoch(0),
        report: None,
        suspects: None,
        released: false,
        terminating: false,
        streams_from: None,
        flushed: None,
        rewind_source: false,
        parameters_refused: None,
        pending_restart: None,
        version: None,
        certificates: None,
        older_life: false,
        echoes: BTreeMap::new(),
    }
}

fn hear(view: &mut View, said: Announcement) {
    let peer = Peer { announcement: said, heard_at: NOW, confirmed_at: Some(NOW), refused: false };
    view.peers.insert(peer.announcement.member.name.clone(), peer);
}

fn standby(end: Option<Position>, upstream: Option<Upstream>) -> Postgres {
    Postgres::Standby(Standby {
        timeline: end.map_or(Timeline(1), |end| end.timeline),
        streaming: upstream.is_some(),
        upstream,
        received: None,
        replayed: None,
        end,
    })
}

fn upstream(n: u64, epoch: u64) -> Upstream {
    Upstream { member: id(n), boot: Boot(n), address: format!("10.0.0.{n}"), epoch: Epoch(epoch) }
}

fn primary(names: &[u64], flushed: &[(u64, u64)], gate: Gate) -> Primary {
    let sender = |at: u64| Walsender { streaming: true, flushed: Some(Lsn(at)) };
    Primary {
        timeline: Timeline(1),
        control_timeline: Timeline(1),
        gate,
        names: Names::Quorum { members: names.iter().map(|n| Incarnation(*n)).collect(), acks: 1 },
        flushed: Lsn(100),
        first_record: Lsn(100),
        fence_xid: Some(3),
        walsenders: flushed.iter().map(|(n, at)| (Incarnation(*n), sender(*at))).collect(),
        prepared: BTreeSet::from([Incarnation(1), Incarnation(2)]),
        provisioned: true,
    }
}

/// A sealed standby `pg-1` that suspects, at this position, with this report of `pg-2`'s.
fn candidate(record: Record, mine: Position, other: Option<(Epoch, Position)>) -> View {
    let mut view = view(1, record, standby(Some(mine), None));
    view.promise.sealed_below = Epoch(2);
    if let Some((sealed_below, position)) = other {
        hear(
            &mut view,
            Announcement {
                sealed_below,
                report: Some(SealReport { sealed_below, position }),
                suspects: Some(Epoch(1)),
                ..said(2)
            },
        );
    }
    view
}

/// Decides when the leader has been silent for long.
fn decide_late(view: &View) -> Decision {
    let mut memory = Memory::default();
    let mut early = view.clone();
    early.peers.clear();
    let _ = decide(&mut memory, &early, Instant(NOW.0 - 10_000_000_000));
    decide(&mut memory, view, NOW)
}

fn swap(decision: &Decision) -> Option<&Swap> {
    decision.actions.iter().find_map(|action| match action {
        Action::Swap(swap) => Some(swap),
        _ => None,
    })
}

#[test]
fn i4_every_electorate_must_be_satisfied() {
    let report = Some((Epoch(2), at(1, 50)));
    for (older, wins) in
        [(None, true), (Some(electorate(0, &[], 0)), false), (Some(electorate(1, &[2], 1)), true)]
    {
        let mut record = record();
        record.electorates.splice(0..0, older);
        let decision = decide_late(&candidate(record, at(1, 50), report));
        assert_eq!(swap(&decision).is_some(), wins, "{:?}", decision.because);
    }
}

#[test]
fn i4_only_seals_above_the_epoch_count() {
    for (sealed, wins) in [(Epoch(1), false), (Epoch(2), true)] {
        let decision = decide_late(&candidate(record(), at(1, 50), Some((sealed, at(1, 50)))));
        assert_eq!(swap(&decision).is_some(), wins);
    }
}

#[test]
fn i5_nobody_wins_below_those_it_needs() {
    for (mine, other, wins) in
        [(at(1, 50), at(1, 51), false), (at(1, 51), at(1, 50), true), (at(1, 90), at(2, 10), false)]
    {
        let decision = decide_late(&candidate(record(), mine, Some((Epoch(2), other))));
        assert_eq!(swap(&decision).is_some(), wins, "{mine} against {other}");
    }
}

#[test]
fn i11_a_win_takes_a_timeline_above_all_and_keeps_the_old_electorates() {
    let mut view = candidate(record(), at(1, 50), Some((Epoch(2), at(1, 40))));
    view.promise.planted = vec![Timeline(6)];
    let decision = decide_late(&view);
    let won = swap(&decision).expect("satisfied");
    assert_eq!((won.purpose, &won.expect), (Purpose::Win, &Version("7".into())));
    assert_eq!((won.record.epoch, won.record.timeline, won.record.fence_xid), (Epoch(2), Timeline(7), None));
    assert_eq!(won.record.electorates, [electorate(0, &[1, 2], 1), electorate(1, &[2], 1)]);
    let last = won.record.history.last().expect("remembered");
    assert_eq!((last.parent, last.fork_lsn), (Some(Timeline(1)), Some(Lsn(50))));
}

#[test]
fn a_lonely_suspicion_seals_nothing() {
    let mut view = view(1, record(), standby(None, Some(upstream(0, 1))));
    let decision = decide_late(&view);
    assert_eq!(decision.suspects, Some(Epoch(1)));
    assert!(decision.because.contains(&Reason::SuspicionNotShared { epoch: Epoch(2) }));
    hear(&mut view, Announcement { suspects: Some(Epoch(1)), ..said(2) });
    assert_eq!(decide_late(&view).actions, [Action::Seal { below: Epoch(2) }]);
}

#[test]
fn a_leader_that_is_heard_is_not_suspected() {
    let mut view = view(1, record(), standby(None, Some(upstream(0, 1))));
    hear(&mut view, Announcement { leads: Some(Epoch(1)), ..said(0) });
    let decision = decide_late(&view);
    assert_eq!((decision.suspects, decision.actions), (None, vec![]));
    hear(&mut view, Announcement { released: true, ..said(0) });
    assert_eq!(decide_late(&view).suspects, Some(Epoch(1)));
}

#[test]
fn i12_nobody_rewinds_before_the_leader_allows_it() {
    let mut record = record();
    record.epoch = Epoch(2);
    record.timeline = Timeline(2);
    record.fork_lsn = Some(Lsn(40));
    record.remember_term(Some(Timeline(1)));
    for (end, allowed, expected) in [
        (at(1, 40), false, Action::Follow { upstream: upstream(0, 2) }),
        (at(1, 41), true, Action::Stop { mode: StopMode::Fast }),
    ] {
        let mut view = view(2, record.clone(), standby(Some(end), None));
        let leader = Announcement { leads: Some(Epoch(2)), record_epoch: Epoch(2), ..said(0) };
        hear(&mut view, leader.clone());
        let decision = decide(&mut Memory::default(), &view, NOW);
        assert_eq!(decision.actions.is_empty(), allowed, "{end}");
        hear(&mut view, Announcement { rewind_source: true, ..leader });
        assert_eq!(decide(&mut Memory::default(), &view, NOW).actions, [expected]);
    }
}

#[test]
fn i13_the_gate_opens_only_after_w_flushed_the_first_record() {
    for (flushed, opens) in [(99, false), (100, true)] {
        let postgres = Postgres::Primary(Box::new(primary(&[1, 2], &[(1, flushed), (2, 0)], Gate::Closed)));
        let decision = decide(&mut Memory::default(), &view(0, record(), postgres), NOW);
        assert_eq!(decision.actions.contains(&Action::OpenGate), opens);
        assert_eq!(decision.actions.contains(&Action::Publish { epoch: Epoch(1) }), opens);
    }
}

#[test]
fn i9_names_follow_only_a_record_that_was_read() {
    let postgres = Postgres::Primary(Box::new(primary(&[1, 2], &[(1, 100)], Gate::Open)));
    let mut kept = record();
    kept.electorates = vec![electorate(0, &[], 0)];
    let mut view = view(0, kept.clone(), postgres);
    let alone = Action::SetNames { names: Names::Alone };
    assert!(decide(&mut Memory::default(), &view, NOW).actions.contains(&alone));
    view.record = RecordView::Unknown { why: "no answer".into() };
    view.promise.last_record = Some(kept);
    assert!(!decide(&mut Memory::default(), &view, NOW).actions.contains(&alone));
}

#[test]
fn i14_a_leader_without_confirmations_stops_itself_at_once() {
    let postgres = Postgres::Primary(Box::new(primary(&[1, 2], &[(1, 100)], Gate::Open)));
    let mut view = view(0, record(), postgres);
    let mut memory = Memory::default();
    let later = NOW.after(Duration::from_secs(4));
    let _ = decide(&mut memory, &view, NOW);
    hear(&mut view, said(1));
    for (sealed, confirmed_at, stops) in
        [(Epoch(0), Some(NOW), true), (Epoch(2), Some(later), true), (Epoch(1), Some(later), false)]
    {
        let peer = view.peers.get_mut(&id(1).name).expect("heard");
        peer.announcement.sealed_below = sealed;
        peer.confirmed_at = confirmed_at;
        let stop = Action::Stop { mode: StopMode::Immediate };
        assert_eq!(decide(&mut memory.clone(), &view, later).actions.contains(&stop), stops);
    }
}

#[test]
fn i15_a_superseded_master_stops_at_once() {
    let postgres = Postgres::Primary(Box::new(primary(&[1, 2], &[(1, 100)], Gate::Open)));
    let mut other = record();
    other.leader = Some(life(1));
    let mut later_life = record();
    later_life.leader = Some(LeaderId { boot: Boot(99), ..life(0) });
    for superseding in [other, later_life] {
        let decision = decide(&mut Memory::default(), &view(0, superseding, postgres.clone()), NOW);
        assert_eq!(decision.actions, [Action::Stop { mode: StopMode::Immediate }]);
    }
}

#[test]
fn every_start_without_a_proof_is_as_a_standby_or_after_a_swap() {
    let stopped = |timeline| {
        Postgres::Stopped(Stopped {
            timeline: Timeline(timeline),
            was_standby: false,
            clean: false,
            end: None,
        })
    };
    let mut recorded = record();
    recorded.timeline = Timeline(2);
    // Half-done: the control file still shows the old timeline.
    let decision = decide(&mut Memory::default(), &view(0, recorded.clone(), stopped(1)), NOW);
    assert_eq!(decision.actions, [Action::StartStandby]);
    // Complete: a swap first, the proof next, then the start.
    let mut memory = Memory::default();
    let view = view(0, recorded, stopped(2));
    assert_eq!(decide(&mut memory, &view, NOW).actions, []);
    let decision = decide(&mut memory, &view, NOW.after(Duration::from_secs(2)));
    let swap = swap(&decision).expect("leads on").clone();
    assert_eq!((swap.purpose, swap.record.epoch, swap.record.fence_xid), (Purpose::LeadOn, Epoch(2), None));
    let led_on = View { record: known((*swap.record).clone()), ..view };
    let proof = swap.won(Version("8".into()));
    memory.won(proof.clone());
    let decision = decide(&mut memory, &led_on, NOW.after(Duration::from_secs(3)));
    assert!(matches!(&decision.actions[..], [Action::StartPrimary { fence, .. }] if *fence == proof));
    let again = decide(&mut memory, &led_on, NOW.after(Duration::from_secs(3)));
    assert!(!again.actions.iter().any(|action| matches!(action, Action::StartPrimary { .. })), "consumed");
}

#[test]
fn a_new_life_leads_on_only_where_the_lock_excludes_the_old_one() {
    let stopped =
        Postgres::Stopped(Stopped { timeline: Timeline(1), was_standby: false, clean: false, end: None });
    for (node, lock, said_stopped, leads_on) in [
        ("node-0", true, false, true),
        ("node-0", false, false, false),
        ("node-9", true, false, false),
        ("node-9", true, true, true),
    ] {
        let mut record = record();
        record.leader = Some(LeaderId { stopped: said_stopped, ..life(0) });
        let mut view = view(0, record, stopped.clone());
        (view.boot, view.node, view.holds_volume_lock) = (Boot(99), node.into(), lock);
        let mut memory = Memory::default();
        let _ = decide(&mut memory, &view, NOW);
        let decision = decide(&mut memory, &view, NOW.after(Duration::from_secs(2)));
        assert_eq!(swap(&decision).is_some(), leads_on, "{node} {lock}");
        assert_eq!(decision.released, leads_on);
    }
}

#[test]
fn k15_only_an_empty_volume_under_an_uninitialised_record_is_initialised() {
    for (n, seconds, acts) in [(0, 0, true), (1, 0, false), (1, 6, true)] {
        let mut view = view(n, Record::uninitialised("cluster"), Postgres::Absent);
        view.promise.bootstrap = Bootstrap::Empty;
        let mut memory = Memory::default();
        let _ = decide(&mut memory, &view, NOW);
        let decision = decide(&mut memory, &view, NOW.after(Duration::from_secs(seconds)));
        assert_eq!(decision.actions == [Action::Initialise], acts);
    }
    let stopped =
        Postgres::Stopped(Stopped { timeline: Timeline(1), was_standby: false, clean: true, end: None });
    let member = view(0, Record::uninitialised("cluster"), stopped.clone());
    assert_eq!(
        decide(&mut Memory::default(), &member, NOW).actions,
        [],
        "data of a member is never taken for new"
    );
    let mut loser = view(2, record(), stopped);
    loser.promise.bootstrap = Bootstrap::Unrecorded;
    assert_eq!(decide(&mut Memory::default(), &loser, NOW).actions, [Action::WipeUnrecorded]);
}

#[test]
fn s6_a_member_whose_data_is_gone_waits_for_a_human() {
    let mut view = view(2, record(), Postgres::Absent);
    hear(&mut view, Announcement { leads: Some(Epoch(1)), ..said(0) });
    assert_eq!(decide(&mut Memory::default(), &view, NOW).actions, []);
    view.promise.bootstrap = Bootstrap::Empty;
    assert_eq!(decide(&mut Memory::default(), &view, NOW).actions, [Action::Clone { from: upstream(0, 1) }]);
}

#[test]
fn a_sealed_member_never_follows_an_older_epoch() {
    let mut view = view(2, record(), standby(Some(at(1, 50)), None));
    view.promise.sealed_below = Epoch(2);
    hear(&mut view, Announcement { leads: Some(Epoch(1)), ..said(0) });
    assert_eq!(decide(&mut Memory::default(), &view, NOW).actions, []);
}

#[test]
fn a_leader_raises_its_epoch_over_a_seal() {
    let postgres = Postgres::Primary(Box::new(primary(&[1, 2], &[(1, 100), (2, 100)], Gate::Open)));
    let mut view = view(0, record(), postgres);
    hear(&mut view, Announcement { sealed_below: Epoch(2), ..said(1) });
    let decision = decide(&mut Memory::default(), &view, NOW);
    let raised = swap(&decision).expect("raises");
    assert_eq!(
        (raised.purpose, raised.record.epoch, raised.record.timeline),
        (Purpose::LeadOn, Epoch(2), Timeline(1))
    );
    assert_eq!(raised.record.electorates, record().electorates);
}

#[test]
fn nobody_acts_on_a_missing_record() {
    let mut view = view(1, record(), standby(Some(at(1, 50)), None));
    view.promise.sealed_below = Epoch(2);
    for missing in [RecordView::Missing, RecordView::Tampered { why: "edited".into() }] {
        view.record = missing;
        view.promise.last_record = Some(record());
        assert!(decide_late(&view).actions.iter().all(|action| !matches!(action, Action::Swap(_))));
    }
}

#[test]
fn i2_a_proof_is_void_once_the_winner_has_sealed_against_its_epoch() {
    let late = |sealed_below| {
        let before = candidate(record(), at(1, 50), Some((Epoch(2), at(1, 40))));
        let won = swap(&decide_late(&before)).expect("wins").clone();
        let mut view = View { record: known((*won.record).clone()), ..before };
        view.promise.sealed_below = sealed_below;
        let mut memory = Memory::default();
        memory.won(won.won(Version("8".into())));
        decide(&mut memory, &view, NOW).actions
    };
    assert!(matches!(&late(Epoch(2))[..], [Action::Promote { timeline: Timeline(2), .. }]));
    assert!(!late(Epoch(3)).iter().any(|action| matches!(action, Action::Promote { .. })));
}

mod lease;
mod orphans;
mod wishes;
