//! Errors that somebody could make in the model of PostgreSQL, one at a time.
//!
//! The comparison with real servers (`tests/differential`) must see every one of them: a model that can be wrong
//! unnoticed proves nothing. No world of the simulator has one. Must never hold what nobody could tell from outside.

use crate::member::Data;
use crate::world::World;

/// What the model takes PostgreSQL to do, and it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misreading {
    /// What a walsender has sent counts as flushed.
    SentIsFlushed,
    /// A standby confirms what it has replayed, not what it has flushed.
    ReplayedIsFlushed,
    /// What a standby has received its readers see, paused or not.
    ReceivedIsReplayed,
    /// Other names are in force as soon as they are read, whatever the checkpointer does (P5).
    NamesAtOnce,
    /// Any standby counts, named or not.
    AnybodyCounts,
    /// One standby is enough, however many are asked for.
    OneIsEnough,
    /// A commit with `synchronous_commit = local` waits (P15).
    WeakCommitsWait,
    /// A commit whose wait is cancelled is rolled back (P2).
    CancelRollsBack,
    /// A commit that waits is hidden on standbys, too (P1).
    WaitingIsHidden,
    /// Commits that waited are hidden on who is promoted with them in its log (P6).
    PromotionHides,
    /// A crash loses the commits that waited (P6).
    CrashLosesWaiting,
    /// A promotion goes on streaming from the old master.
    PromotionStreams,
    /// A promotion takes the next timeline, whatever history files there are (P11).
    NextTimeline,
    /// A start without `standby.signal` recovers to the newest timeline, not to the control file's (P24).
    NewestTimeline,
    /// A standby that is ahead of the fork follows (P12).
    StrangerFollows,
    /// A fast stop does not send the shutdown checkpoint (P23).
    StopSendsNothing,
    /// A standby's clean stop leaves the control file as it was.
    StopIsNoRestartpoint,
    /// A rewind copies although the timelines are equal (P22).
    RewindCopies,
    /// A rewind leaves planted history files behind.
    RewindKeepsHistory,
}

impl Misreading {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::SentIsFlushed,
        Self::ReplayedIsFlushed,
        Self::ReceivedIsReplayed,
        Self::NamesAtOnce,
        Self::AnybodyCounts,
        Self::OneIsEnough,
        Self::WeakCommitsWait,
        Self::CancelRollsBack,
        Self::WaitingIsHidden,
        Self::PromotionHides,
        Self::CrashLosesWaiting,
        Self::PromotionStreams,
        Self::NextTimeline,
        Self::NewestTimeline,
        Self::StrangerFollows,
        Self::StopSendsNothing,
        Self::StopIsNoRestartpoint,
        Self::RewindCopies,
        Self::RewindKeepsHistory,
    ];
}

impl World {
    /// Nothing: a promotion shows every commit in its log, waited for or not (P6).
    pub(crate) fn hidden_by_a_promotion(&self, m: usize) -> Vec<usize> {
        let ours = self.members.get(m).and_then(|member| member.data.as_ref());
        let Some(ours) = ours.filter(|_| self.misreading == Some(Misreading::PromotionHides)) else {
            return Vec::new();
        };
        let waits = self.members.iter().filter_map(|other| Some((other.primary()?, other.data.as_ref()?)));
        let same = |at: &usize, theirs: &Data| ours.wal.at(*at) == theirs.wal.at(*at);
        waits
            .flat_map(|(primary, theirs)| primary.waiting.iter().map(move |at| (*at, theirs)))
            .filter(|(at, theirs)| same(at, theirs))
            .map(|(at, _)| at)
            .collect()
    }
}
