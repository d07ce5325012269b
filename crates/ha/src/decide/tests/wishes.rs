//! What a human or the controller asks for: forced promotions, a pause; and records that somebody put back.

use super::*;
use crate::decision::Refusal;
use crate::record::DataLoss;
use crate::settings::Forced;

/// `pg-1`, sealed, alone, 40 bytes behind what the leader had told, asked to lead by force after epoch 1.
fn asked(epoch: u64) -> View {
    let mut view = candidate(record(), at(1, 50), None);
    view.settings.forced = Some(Forced { member: id(1).name, epoch: Epoch(epoch) });
    view
}

/// Ten seconds of the same view, after the leader was heard once at 90.
fn ten_seconds(view: &View) -> Decision {
    let mut memory = Memory::default();
    let mut before = view.clone();
    before.peers.clear();
    before.settings.forced = None;
    hear(&mut before, Announcement { leads: Some(Epoch(1)), flushed: Some(Lsn(90)), ..said(0) });
    let _ = decide(&mut memory, &before, Instant(NOW.0 - 20_000_000_000));
    let _ = decide(&mut memory, view, Instant(NOW.0 - 10_000_000_000));
    decide(&mut memory, view, NOW)
}

#[test]
fn forced_promotions_are_recorded_with_what_they_give_up() {
    let decision = ten_seconds(&asked(1));
    let forced = swap(&decision).expect("asked for");
    assert_eq!(
        (forced.purpose, forced.record.epoch, forced.record.timeline),
        (Purpose::Force, Epoch(2), Timeline(2))
    );
    // From here on nothing but this copy is relied on.
    assert_eq!(forced.record.electorates, [electorate(1, &[], 0)]);
    let loss = DataLoss {
        epoch: Epoch(2),
        member: id(1),
        kept: at(1, 50),
        former: Some(id(0).name),
        known_bytes: Some(40),
    };
    assert_eq!(forced.record.data_loss, Some(loss.clone()));
    let told = Reason::Forcing { epoch: Epoch(2), position: at(1, 50), known_bytes: Some(40) };
    assert!(decision.because.contains(&told), "{:?}", decision.because);
    // The loss stays in the record whatever is written later.
    let view = candidate((*forced.record).clone(), at(2, 60), None);
    let view = View { promise: Promise { sealed_below: Epoch(3), ..view.promise.clone() }, ..view };
    let next = swap(&decide_late(&view)).expect("its own electorate").clone();
    assert_eq!((next.purpose, next.record.data_loss), (Purpose::Win, Some(loss)));
}

#[test]
fn forced_promotions_are_for_the_epoch_that_was_seen() {
    for (epoch, wins) in [(0, false), (1, true), (2, false)] {
        assert_eq!(swap(&ten_seconds(&asked(epoch))).is_some(), wins, "asked after epoch {epoch}");
    }
    let mut other = asked(1);
    other.settings.forced = Some(Forced { member: id(2).name, epoch: Epoch(1) });
    assert_eq!(swap(&ten_seconds(&other)), None, "somebody else was asked");
}

#[test]
fn forced_promotions_wait_for_a_safe_election() {
    let view = asked(1);
    let mut memory = Memory::default();
    let _ = decide(&mut memory, &view, NOW);
    let early = decide(&mut memory, &view, NOW.after(Duration::from_millis(2_500)));
    assert_eq!(swap(&early), None);
    assert!(early.because.contains(&Reason::ForceWaits { epoch: Epoch(1) }));
    // With the other standby's seal at hand the same member wins safely.
    let mut safe = asked(1);
    let report = Some(SealReport { sealed_below: Epoch(2), position: at(1, 40) });
    hear(&mut safe, Announcement { sealed_below: Epoch(2), report, suspects: Some(Epoch(1)), ..said(2) });
    let won = swap(&ten_seconds(&safe)).expect("safe").clone();
    assert_eq!((won.purpose, won.record.data_loss), (Purpose::Win, None));
}

#[test]
fn forced_promotions_are_refused_beside_a_longer_copy_or_a_leader() {
    let refused = |view: &View| {
        let decision = ten_seconds(view);
        assert_eq!(swap(&decision), None, "{:?}", decision.because);
        decision.because.iter().find_map(|why| match why {
            Reason::ForceRefused { refusal, .. } => Some(refusal.clone()),
            _ => None,
        })
    };
    let mut longer = asked(1);
    hear(&mut longer, Announcement { flushed: Some(Lsn(60)), ..said(2) });
    let more = Refusal::AnotherHoldsMore { member: id(2), position: at(1, 60) };
    assert_eq!(refused(&longer), Some(more));
    let mut led = asked(1);
    hear(&mut led, Announcement { leads: Some(Epoch(1)), ..said(0) });
    assert_eq!(refused(&led), Some(Refusal::LeaderServes));
    let mut unfit = asked(1);
    unfit.promise.rewinding = true;
    assert_eq!(refused(&unfit), Some(Refusal::Unfit));
}

#[test]
fn forced_promotions_that_a_leader_refuses_are_void_for_ever() {
    let postgres = Postgres::Primary(Box::new(primary(&[1, 2], &[(1, 100), (2, 100)], Gate::Open)));
    let mut view = view(0, record(), postgres);
    view.settings.forced = Some(Forced { member: id(1).name, epoch: Epoch(1) });
    let decision = decide(&mut Memory::default(), &view, NOW);
    let raised = swap(&decision).expect("ends the epoch that was asked for");
    assert_eq!((raised.purpose, raised.record.epoch), (Purpose::LeadOn, Epoch(2)));
    view.record = known((*raised.record).clone());
    assert_eq!(swap(&decide(&mut Memory::default(), &view, NOW)), None);
}

#[test]
fn paused_nobody_leaves_for_the_controller_and_elections_go_on() {
    let postgres = Postgres::Primary(Box::new(primary(&[1, 2], &[(1, 100), (2, 100)], Gate::Open)));
    let mut leader = view(0, record(), postgres);
    leader.settings.leaving.insert(id(0).name);
    for n in [1, 2] {
        hear(&mut leader, Announcement { flushed: Some(Lsn(100)), ..said(n) });
    }
    for (paused, leaves) in [(false, true), (true, false)] {
        leader.settings.paused = paused;
        let decision = decide(&mut Memory::default(), &leader, NOW);
        assert_eq!(swap(&decision).is_some_and(|swap| swap.purpose == Purpose::Handover), leaves);
        assert_eq!(decision.because.contains(&Reason::Paused), paused);
    }
    let mut elected = candidate(record(), at(1, 50), Some((Epoch(2), at(1, 40))));
    elected.settings.paused = true;
    assert_eq!(swap(&decide_late(&elected)).map(|swap| swap.purpose), Some(Purpose::Win));
}

#[test]
fn a_record_that_was_put_back_within_its_epoch_is_no_record() {
    let mut newest = record();
    newest.generation = 7;
    let mut old = record();
    (old.generation, old.electorates) = (6, vec![electorate(0, &[1], 1)]);
    let mut edited = newest.clone();
    edited.electorates = old.electorates.clone();
    for (shown, usable) in [(newest.clone(), true), (old, false), (edited, false), (record(), true)] {
        let mut view = candidate(shown, at(1, 50), Some((Epoch(2), at(1, 40))));
        view.promise.last_record = Some(newest.clone());
        let decision = decide_late(&view);
        assert_eq!(swap(&decision).is_some(), usable, "{:?}", decision.because);
        let told = decision.because.iter().any(|why| matches!(why, Reason::RecordTampered { .. }));
        assert_eq!(told, !usable);
    }
}

#[test]
fn nothing_is_swapped_on_a_record_that_somebody_has_seen_a_later_write_of() {
    let mut shown = record();
    shown.generation = 6;
    for (heard, wins) in [(0, true), (6, true), (7, false)] {
        let mut view = candidate(shown.clone(), at(1, 50), Some((Epoch(2), at(1, 40))));
        let peer = view.peers.get_mut(&id(2).name).expect("heard");
        peer.announcement.record_generation = heard;
        assert_eq!(swap(&decide_late(&view)).is_some(), wins, "write {heard}");
    }
}

#[test]
fn every_change_of_the_record_is_counted_and_a_renewal_is_none() {
    let mut counted = record();
    counted.generation = 6;
    let decision = decide_late(&candidate(counted, at(1, 50), Some((Epoch(2), at(1, 40)))));
    assert_eq!(swap(&decision).map(|swap| swap.record.generation), Some(7));
}

#[test]
fn the_proof_of_a_renewal_starts_nothing() {
    let postgres = Postgres::Primary(Box::new(primary(&[1, 2], &[(1, 100), (2, 100)], Gate::Open)));
    let running = view(0, record(), postgres);
    let mut memory = Memory::default();
    let _ = decide(&mut memory, &running, NOW);
    // Its Postgres is gone, and a swap of this term that was under way is confirmed only now.
    let same = Swap { expect: Version("7".into()), record: Box::new(record()), purpose: Purpose::Renew };
    memory.won(same.won(Version("8".into())));
    let stopped = Stopped { timeline: Timeline(1), was_standby: false, clean: false, end: None };
    let down = view(0, record(), Postgres::Stopped(stopped));
    assert_eq!(decide(&mut memory, &down, NOW).actions, [], "the others may elect first");
}
