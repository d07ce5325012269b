//! Whom a rewound directory is started with: it is not consistent before it has streamed from that very leader.
//!
//! Decides by the record and by what the leader says itself. It must never name a leader of another log: that one may
//! lack what this directory holds, and nobody can measure it before it is consistent (P12, I11). What a member says of
//! itself meanwhile is tested here, too: nothing that an election or a commit could rest on (I2).

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use ha::{MemberId, MemberName, Peer, Record, Timeline, Upstream};

/// The recorded leader, as far as it speaks in the life that is recorded.
pub(super) fn leader(
    record: Option<&Record>,
    own: &MemberId,
    heard: &BTreeMap<MemberName, Peer>,
) -> anyhow::Result<Upstream> {
    let record = record.context("a rewound directory needs a leader, and the record is not known")?;
    let leader = record.leader.as_ref().context("a rewound directory needs a leader, and there is none")?;
    ensure!(leader.member() != *own, "a rewound directory needs another leader than itself");
    let said = heard.get(&leader.name).map(|peer| &peer.announcement);
    let said =
        said.filter(|said| said.boot == leader.boot).context("the recorded leader was not heard yet")?;
    Ok(Upstream {
        member: leader.member(),
        boot: leader.boot,
        address: said.address.clone(),
        epoch: record.epoch,
    })
}

/// The recorded leader's log is the one that the directory was rewound to.
pub(super) fn same_log(record: &Record, rewound_to: Timeline) -> anyhow::Result<()> {
    ensure!(
        record.timeline == rewound_to,
        "rewound to timeline {rewound_to}, and the leader is on {}",
        record.timeline
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use ha::{Announcement, Boot, Condition, Decision, Epoch, Instant, Lsn, Position, Postgres, Stopped};

    use super::super::super::fixtures::{id, peer, record, standby, view};
    use super::*;

    #[test]
    fn p12_a_rewound_directory_is_started_with_the_recorded_leader_in_its_recorded_life() {
        let heard = BTreeMap::from([peer(1, |_| {}), peer(2, |_| {})]);
        let found = leader(Some(&record(1, 4)), &id(0), &heard).unwrap();
        assert_eq!((found.member, found.boot, found.epoch), (id(1), Boot(1), Epoch(4)));
        assert_eq!(found.address, "10.0.0.9");

        assert!(leader(None, &id(0), &heard).is_err(), "unknown is nobody");
        assert!(leader(Some(&record(0, 4)), &id(0), &heard).is_err(), "itself");
        assert!(leader(Some(&record(3, 4)), &id(0), &heard).is_err(), "never heard");
        let later = BTreeMap::from([peer(1, |said| said.boot = Boot(7))]);
        assert!(leader(Some(&record(1, 4)), &id(0), &later).is_err(), "another life of it");
        let nobody = Record { leader: None, ..record(1, 4) };
        assert!(leader(Some(&nobody), &id(0), &heard).is_err());
    }

    #[test]
    fn p12_a_rewound_directory_is_started_with_the_log_that_it_was_rewound_to_alone() {
        let record = Record { timeline: Timeline(3), ..record(1, 4) };
        assert!(same_log(&record, Timeline(3)).is_ok());
        assert!(same_log(&record, Timeline(2)).is_err(), "that one's leader was replaced");
        assert!(same_log(&record, Timeline(4)).is_err(), "the record is behind");
    }

    fn said(postgres: Postgres) -> Announcement {
        let mut view = view(record(1, 4), postgres);
        view.promise.catching_up = Some(Timeline(1));
        view.promise.sealed_below = Epoch(5);
        Announcement::compose(&view, &Decision::default(), "10.0.0.9", Instant(0))
    }

    #[test]
    fn i2_what_is_not_consistent_reports_no_end_and_confirms_no_flush() {
        // It answers nobody, so that is all that the probe can say.
        let starting = said(Postgres::Starting);
        assert_eq!((starting.condition, &starting.report), (Condition::Starting, &None));
        assert_eq!((starting.flushed, starting.timeline, &starting.streams_from), (None, None, &None));
        assert_eq!(starting.sealed_below, Epoch(5), "the seal itself holds");
        // Whatever its control file says of its end.
        let end = Position { timeline: Timeline(1), lsn: Lsn(100) };
        let stopped = Stopped { timeline: Timeline(1), was_standby: false, clean: true, end: Some(end) };
        assert_eq!(said(Postgres::Stopped(stopped)).report, None);
        // Once it answers it is consistent, and its end is measured like any other's.
        let Postgres::Standby(mut seen) = standby(None) else { panic!("a standby") };
        assert_eq!(said(Postgres::Standby(seen.clone())).report, None);
        seen.end = Some(end);
        assert_eq!(said(Postgres::Standby(seen)).report.map(|report| report.position), Some(end));
    }
}
