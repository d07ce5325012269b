//! Asynchronous mode: from when a lease gives authority (§5).

use super::*;

const LEASE: Duration = Duration::from_secs(15);

/// `pg-0` leads by a lease, and its gate is open.
fn leads() -> View {
    let mut record = record();
    record.lease_millis = Some(15_000);
    record.electorates = vec![electorate(0, &[], 0)];
    let postgres = Postgres::Primary(Box::new(Primary {
        timeline: Timeline(1),
        control_timeline: Timeline(1),
        gate: Gate::Open,
        names: Names::Alone,
        flushed: Lsn(100),
        first_record: Lsn(50),
        fence_xid: Some(3),
        walsenders: BTreeMap::new(),
        prepared: BTreeSet::new(),
        provisioned: true,
    }));
    let mut view = view(0, record, postgres);
    view.settings.mode = crate::settings::DurabilityMode::Async;
    view.route = Route::Here { epoch: Epoch(1) };
    view
}

fn renewal(decision: &Decision) -> Option<&Swap> {
    decision.actions.iter().find_map(|action| match action {
        Action::Swap(swap) if swap.purpose == Purpose::Renew => Some(swap),
        _ => None,
    })
}

/// Its agent renews at `NOW`, or thinks that it does; what it wants is won at once.
fn renewed(memory: &mut Memory, view: &mut View) {
    memory.lease_from = Some((Version("6".into()), Instant(NOW.0 - 5_000_000_000)));
    let decision = decide(memory, view, NOW);
    let swap = renewal(&decision).expect("due").clone();
    memory.won(swap.won(Version("8".into())));
    let RecordView::Known { version, .. } = &mut view.record else { panic!("known") };
    *version = Version("8".into());
}

#[test]
fn an_agent_that_forgot_when_it_renewed_has_no_authority() {
    let view = leads();
    let decision = decide(&mut Memory::default(), &view, NOW);
    assert_eq!(decision.actions, [Action::Stop { mode: StopMode::Immediate }]);
    assert!(matches!(decision.because[..], [Reason::AuthorityLost { .. }]), "{decision:?}");
}

#[test]
fn a_lease_counts_from_before_ones_own_write_was_sent() {
    let (mut memory, mut view) = (Memory::default(), leads());
    renewed(&mut memory, &mut view);
    let last = NOW.after(LEASE * 9 / 10);
    assert!(!decide(&mut memory, &view, Instant(last.0 - 1)).actions.iter().any(stops));
    assert!(decide(&mut memory, &view, last).actions.iter().any(stops));
}

#[test]
fn what_others_write_prolongs_nothing() {
    let (mut memory, mut view) = (Memory::default(), leads());
    renewed(&mut memory, &mut view);
    let later = NOW.after(Duration::from_secs(4));
    let RecordView::Known { version, .. } = &mut view.record else { panic!("known") };
    *version = Version("9".into());
    let _ = decide(&mut memory, &view, later);
    assert!(decide(&mut memory, &view, NOW.after(LEASE * 9 / 10)).actions.iter().any(stops));
}

#[test]
fn a_renewal_counts_from_its_first_try() {
    let (mut memory, mut view) = (Memory::default(), leads());
    renewed(&mut memory, &mut view);
    // The next one is not answered, and tried again on the same snapshot: which try took effect nobody knows.
    let (first, second) = (NOW.after(Duration::from_secs(5)), NOW.after(Duration::from_secs(9)));
    assert!(renewal(&decide(&mut memory, &view, first)).is_some());
    let decision = decide(&mut memory, &view, second);
    memory.won(renewal(&decision).expect("again").clone().won(Version("9".into())));
    // Told again, it is no news.
    let token = renewal(&decision).expect("again").clone().won(Version("9".into()));
    let _ = decide(&mut memory, &view, second);
    memory.won(token);
    let RecordView::Known { version, .. } = &mut view.record else { panic!("known") };
    *version = Version("9".into());
    let last = first.after(LEASE * 9 / 10);
    assert!(!decide(&mut memory, &view, Instant(last.0 - 1)).actions.iter().any(stops));
    assert!(decide(&mut memory, &view, last).actions.iter().any(stops));
}

fn stops(action: &Action) -> bool {
    matches!(action, Action::Stop { .. })
}
