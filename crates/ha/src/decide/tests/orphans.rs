//! A rewound directory whose leader was replaced before it was consistent (P12).

use super::*;

/// `pg-1` was rewound to `pg-0`'s timeline 1 and started with it; the record is of `pg-2`, on this timeline.
fn rewound(timeline: u32, postgres: Postgres) -> View {
    let mut record = record();
    record.epoch = Epoch(2);
    record.leader = Some(life(2));
    record.timeline = Timeline(timeline);
    let mut view = view(1, record, postgres);
    view.promise.catching_up = Some(Timeline(1));
    view.promise.last_epoch = Epoch(1);
    let leads =
        Announcement { leads: Some(Epoch(2)), rewind_source: true, record_epoch: Epoch(2), ..said(2) };
    hear(&mut view, leads);
    hear(&mut view, Announcement { streams_from: Some(id(2)), record_epoch: Epoch(2), ..said(0) });
    view
}

fn stopped() -> Postgres {
    Postgres::Stopped(Stopped { timeline: Timeline(1), was_standby: true, clean: false, end: None })
}

#[test]
fn p12_an_orphan_is_stopped_when_it_had_its_time_and_never_follows() {
    let view = rewound(2, Postgres::Starting);
    let mut memory = Memory::default();
    let decision = decide(&mut memory, &view, NOW);
    assert_eq!(decision.actions, []);
    let due = decision.wake_at.expect("looks again");
    assert_eq!(decide(&mut memory, &view, due).actions, [Action::Stop { mode: StopMode::Immediate }]);
    // The term that it was started in goes on: no reason to stop it, however long it takes.
    let mut same = view.clone();
    same.promise.last_epoch = Epoch(2);
    let mut memory = Memory::default();
    assert_eq!(decide(&mut memory, &same, NOW).actions, []);
    assert_eq!(decide(&mut memory, &same, due).actions, []);
}

#[test]
fn p12_an_orphan_is_rebuilt_and_not_started() {
    let decision = decide(&mut Memory::default(), &rewound(2, stopped()), NOW);
    assert!(matches!(decision.actions[..], [Action::Reclone { .. }]), "{decision:?}");
    // A later term on the same timeline has the same log.
    let decision = decide(&mut Memory::default(), &rewound(1, stopped()), NOW);
    assert_eq!(decision.actions, [Action::StartStandby]);
}
