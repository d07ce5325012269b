//! The last words of every member, and what they prove.
//!
//! Of one boot only newer words count. Words of another boot replace the known ones only when they come over a
//! younger connection: a process that was frozen and thaws speaks over its old one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ha::{Announcement, Boot, Echo, Instant, MemberName, Peer};

use super::Notes;

/// Names that are remembered at most: a bound on memory, far above any cluster's size.
const MAX_MEMBERS: usize = 128;

/// A member that is no peer any more is forgotten after this much silence.
const FORGET: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Table {
    member: MemberName,
    boot: Boot,
    entries: BTreeMap<MemberName, Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: Peer,
    notes: Notes,
    connection: u64,
}

/// The words without what the channel itself fills in, and without positions, which change all the time and are for
/// display: what counts as news.
fn news(announcement: &Announcement) -> Announcement {
    Announcement { flushed: None, ..without_sending(announcement.clone()) }
}

/// The words without what the channel itself fills in.
pub(super) fn without_sending(announcement: Announcement) -> Announcement {
    Announcement { sent_at: Instant(0), echoes: BTreeMap::new(), ..announcement }
}

/// Whether the second says something that the first does not.
pub(super) fn differs(before: &Announcement, after: &Announcement) -> bool {
    news(before) != news(after)
}

impl Table {
    pub(super) fn new(member: MemberName, boot: Boot) -> Self {
        Self { member, boot, entries: BTreeMap::new() }
    }

    /// Takes words that arrived over this connection (they are numbered as accepted). Returns whether they are news.
    pub(super) fn hear(&mut self, connection: u64, said: Announcement, now: Instant) -> bool {
        let name = said.member.name.clone();
        if name == self.member {
            return false;
        }
        let echo = said.echoes.get(&self.member).filter(|echo| echo.boot == self.boot);
        let echoed = echo.map(|echo| echo.sent_at).filter(|sent_at| *sent_at <= now);
        let Some(entry) = self.entries.get_mut(&name) else {
            if self.entries.len() < MAX_MEMBERS {
                let peer = Peer { announcement: said, heard_at: now, confirmed_at: echoed, refused: false };
                self.entries.insert(name, Entry { peer, notes: Notes::default(), connection });
                return true;
            }
            return false;
        };
        let known = &entry.peer.announcement;
        let same_boot = known.boot == said.boot;
        if same_boot && said.sent_at <= known.sent_at || !same_boot && connection <= entry.connection {
            return false;
        }
        let is_news = entry.peer.refused || differs(known, &said);
        let confirmed_at = if same_boot { echoed.max(entry.peer.confirmed_at) } else { echoed };
        entry.peer = Peer { announcement: said, heard_at: now, confirmed_at, refused: false };
        entry.connection = connection.max(entry.connection);
        is_news
    }

    /// Takes notes that arrived over this connection, when it is the one whose words count. They are no news: nothing is
    /// decided on them.
    pub(super) fn note(&mut self, connection: u64, name: &MemberName, notes: Notes) {
        if let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.connection == connection) {
            entry.notes = notes;
        }
    }

    /// The last notes of every member.
    pub(super) fn notes(&self) -> BTreeMap<MemberName, Notes> {
        self.entries.iter().map(|(name, entry)| (name.clone(), entry.notes.clone())).collect()
    }

    /// A connection and a probe, begun at `since`, were refused. Returns whether that is news.
    pub(super) fn refuse(&mut self, name: &MemberName, since: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(name) else { return false };
        if entry.peer.refused || entry.peer.heard_at >= since {
            return false;
        }
        entry.peer.refused = true;
        true
    }

    /// Forgets silent members that are no peers any more.
    pub(super) fn keep(&mut self, peers: &BTreeMap<MemberName, IpAddr>, now: Instant) {
        self.entries
            .retain(|name, entry| peers.contains_key(name) || now.since(entry.peer.heard_at) < FORGET);
    }

    pub(super) fn heard(&self) -> BTreeMap<MemberName, Peer> {
        self.entries.iter().map(|(name, entry)| (name.clone(), entry.peer.clone())).collect()
    }

    /// What to echo to everybody.
    pub(super) fn echoes(&self) -> BTreeMap<MemberName, Echo> {
        let echo = |peer: &Peer| Echo { boot: peer.announcement.boot, sent_at: peer.announcement.sent_at };
        self.entries.iter().map(|(name, entry)| (name.clone(), echo(&entry.peer))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::{Condition, Epoch, Incarnation, Lsn, MemberId};

    fn name(text: &str) -> MemberName {
        MemberName(text.to_owned())
    }

    fn words(boot: u64, sent_at: u64) -> Announcement {
        Announcement {
            member: MemberId { name: name("pg-1"), incarnation: Incarnation(1) },
            pod_uid: "u".into(),
            boot: Boot(boot),
            address: "10.0.0.1".into(),
            sent_at: Instant(sent_at),
            record_epoch: Epoch(1),
            record_generation: 0,
            condition: Condition::Standby,
            leads: None,
            timeline: None,
            sealed_below: Epoch(0),
            report: None,
            suspects: None,
            released: false,
            terminating: false,
            streams_from: None,
            flushed: None,
            rewind_source: false,
            echoes: BTreeMap::new(),
            pending_restart: None,
            parameters_refused: None,
            version: None,
            certificates: None,
            older_life: false,
        }
    }

    fn table() -> Table {
        Table::new(name("pg-0"), Boot(7))
    }

    #[test]
    fn older_words_of_one_boot_are_dropped_and_repetition_is_no_news() {
        let mut table = table();
        assert!(table.hear(1, words(1, 10), Instant(100)));
        assert!(!table.hear(1, words(1, 20), Instant(110)), "the same again");
        let moved = Announcement { flushed: Some(Lsn(5)), ..words(1, 25) };
        assert!(!table.hear(1, moved, Instant(115)), "a position is no news");
        let late = Announcement { released: true, ..words(1, 15) };
        assert!(!table.hear(1, late, Instant(120)));
        assert!(!table.heard()[&name("pg-1")].announcement.released);
        let new = Announcement { released: true, ..words(1, 30) };
        assert!(table.hear(1, new, Instant(130)));
    }

    #[test]
    fn an_older_process_of_the_same_name_does_not_come_back_over_its_old_connection() {
        let mut table = table();
        assert!(table.hear(1, words(1, 10), Instant(100)));
        assert!(table.hear(2, words(2, 3), Instant(110)), "a new boot, whatever its clock");
        assert!(!table.hear(1, words(1, 500), Instant(120)));
        let kept = |bytes| Notes { diverged_wal: vec![api::KeptWal { path: "kept".into(), bytes }] };
        table.note(2, &name("pg-1"), kept(2));
        table.note(1, &name("pg-1"), kept(1));
        assert_eq!(table.notes()[&name("pg-1")], kept(2));
        assert_eq!(table.heard()[&name("pg-1")].announcement.boot, Boot(2));
    }

    #[test]
    fn only_echoes_of_this_boot_and_of_the_past_confirm_and_they_never_go_back() {
        let mut table = table();
        let echo = |sent_at: u64, boot: u64, echoed: u64| {
            let echo = Echo { boot: Boot(boot), sent_at: Instant(echoed) };
            Announcement { echoes: [(name("pg-0"), echo)].into(), ..words(1, sent_at) }
        };
        let confirmed = |table: &Table| table.heard()[&name("pg-1")].confirmed_at;
        table.hear(1, echo(1, 6, 90), Instant(100));
        assert_eq!(confirmed(&table), None, "another boot's");
        table.hear(1, echo(2, 7, 90), Instant(101));
        assert_eq!(confirmed(&table), Some(Instant(90)));
        table.hear(1, echo(3, 7, 80), Instant(102));
        assert_eq!(confirmed(&table), Some(Instant(90)));
        table.hear(1, echo(4, 7, 5000), Instant(103));
        assert_eq!(confirmed(&table), Some(Instant(90)), "nobody confirms the future");
    }

    #[test]
    fn refusal_counts_only_after_the_last_words() {
        let mut table = table();
        table.hear(1, words(1, 10), Instant(100));
        assert!(!table.refuse(&name("pg-1"), Instant(99)));
        assert!(table.refuse(&name("pg-1"), Instant(101)));
        assert!(!table.refuse(&name("pg-1"), Instant(102)), "said already");
        assert!(table.hear(1, words(1, 11), Instant(103)), "it is back");
        assert!(!table.heard()[&name("pg-1")].refused);
    }

    #[test]
    fn nobody_speaks_for_this_member() {
        let mut table = Table::new(name("pg-1"), Boot(7));
        assert!(!table.hear(1, words(1, 10), Instant(100)));
        assert!(table.heard().is_empty());
    }
}
