//! What a member has promised, durable beside its data directory (§2, I3).

use serde::{Deserialize, Serialize};

use crate::record::{LeaderId, Record};
use crate::types::{Boot, Epoch, Incarnation, MemberId, Timeline};

/// How the data directory came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Bootstrap {
    /// No data directory yet, or one that a clone left unfinished.
    Empty,
    /// Made by initdb for a record that was still uninitialised, and not recorded yet: it has never served anybody.
    Unrecorded,
    /// Part of the recorded cluster: never wiped without proof of other copies.
    Member,
}

/// A small fsynced file on the same volume as the data directory. Written before anything relies on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promise {
    /// Made with the data directory.
    pub incarnation: Incarnation,
    /// This member never again acknowledges WAL of an epoch below this one. Only grows.
    pub sealed_below: Epoch,
    /// The last epoch whose leader was streamed from or led.
    pub last_epoch: Epoch,
    /// The timeline of that.
    pub last_timeline: Timeline,
    /// UID of the PostgresCluster.
    pub cluster_uid: String,
    /// PostgreSQL's system identifier, once there is a data directory.
    pub system_identifier: Option<u64>,
    /// How the data directory came to be.
    pub bootstrap: Bootstrap,
    /// Timeline ids whose history files were planted for a promotion that has not completed (P11).
    #[serde(default)]
    pub planted: Vec<Timeline>,
    /// A rewind began and did not end: the directory must never be started (§4 step 10).
    #[serde(default)]
    pub rewinding: bool,
    /// Rewound to the log of this timeline's leader and not consistent since: it may need what that leader had not
    /// flushed yet, and holds what a later leader may lack. None once its Postgres answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catching_up: Option<Timeline>,
    /// The last record that was seen; a winner's own before it promotes.
    #[serde(default)]
    pub last_record: Option<Record>,
    /// The life in which a member with this volume last won a term, written before it is out of recovery; `stopped` once
    /// that life has stopped its Postgres cleanly and sealed itself. A later life that cannot exclude it does not
    /// stand for the electorates of its terms (§2). None: never led, or by an agent that does not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub led: Option<LeaderId>,
}

impl Promise {
    /// The promise of a new, empty volume.
    pub fn new(incarnation: Incarnation, cluster_uid: impl Into<String>) -> Self {
        Self {
            incarnation,
            sealed_below: Epoch(0),
            last_epoch: Epoch(0),
            last_timeline: Timeline(0),
            cluster_uid: cluster_uid.into(),
            system_identifier: None,
            bootstrap: Bootstrap::Empty,
            planted: Vec::new(),
            rewinding: false,
            catching_up: None,
            last_record: None,
            led: None,
        }
    }

    /// Keeps a record that supersedes the one kept. When it names this very life, this life has won, though it may have
    /// learnt so too late to lead: what was elected holds everything that older lives had acknowledged, and they can
    /// acknowledge nothing more (§2). Without this the new term's electorate could rest on a member that doubts itself.
    pub fn keep(&mut self, record: &Record, me: &MemberId, boot: Boot) {
        if self.last_record.as_ref().is_some_and(|kept| !record.supersedes(kept)) {
            return;
        }
        let new_term = self.last_record.as_ref().is_none_or(|kept| kept.epoch < record.epoch);
        self.last_record = Some(record.clone());
        let this_life = |leader: &LeaderId| leader.member() == *me && leader.boot == boot;
        if let Some(leader) = record.leader.as_ref().filter(|leader| this_life(leader))
            && (new_term || !self.led.as_ref().is_some_and(this_life))
        {
            self.led = Some(leader.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::electorate::Electorate;
    use crate::types::MemberName;

    fn leader(me: &MemberId, boot: Boot) -> LeaderId {
        LeaderId {
            name: me.name.clone(),
            pod_uid: String::new(),
            boot,
            incarnation: me.incarnation,
            node: String::new(),
            stopped: false,
        }
    }

    #[test]
    fn whoever_has_won_remembers_it_and_older_lives_are_doubted_no_more() {
        let me = MemberId { name: MemberName("pg-1".to_owned()), incarnation: Incarnation(1) };
        let mut record = Record::uninitialised("cluster");
        record.epoch = Epoch(15);
        record.leader = Some(leader(&me, Boot(2)));
        record.widen(Electorate::new(me.clone(), std::collections::BTreeSet::new(), 0));
        let mut promise = Promise::new(Incarnation(1), "cluster");
        promise.led = Some(leader(&me, Boot(1)));
        let before = promise.led.clone();
        promise.keep(&record, &me, Boot(3));
        assert_eq!(promise.led, before, "another life has won");
        promise.last_record = None;
        promise.keep(&record, &me, Boot(2));
        assert_eq!(promise.led, record.leader);
        if let Some(led) = &mut promise.led {
            led.stopped = true;
        }
        record.generation += 1;
        promise.keep(&record, &me, Boot(2));
        assert!(
            promise.led.as_ref().is_some_and(|led| led.stopped),
            "the same term again takes nothing back"
        );
        record.epoch = Epoch(16);
        promise.keep(&record, &me, Boot(2));
        assert!(promise.led.is_some_and(|led| !led.stopped), "a new one may not be over");
    }
}
