//! Named rules that the simulator switches off, one at a time, to show that each is needed.
//!
//! All are on by default and nothing outside the simulator may build other than the default; the proof that each
//! matters is `matriarch-sim --mutations`.

/// Which rules are in force. `true` everywhere outside mutation tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "a list of switches, one per rule, each named")]
pub struct Rules {
    /// Every electorate of the record must be satisfied, not only the newest (I4).
    pub all_electorates: bool,
    /// The candidate is at the maximum position of those that it counts (I5).
    pub maximum_position: bool,
    /// Only seals for the epoch aimed at count (§4 step 4).
    pub fresh_seals: bool,
    /// Nobody seals before enough others suspect the leader too (pre-vote, §4 step 2).
    pub pre_vote: bool,
    /// The gate opens only after w members flushed the first record (I13).
    pub gate_after_quorum: bool,
    /// Older electorates stay until the epoch is committed (I8).
    pub keep_electorates: bool,
    /// Electorate changes are joint and narrowed last (I9).
    pub joint_change: bool,
    /// A new timeline is above every timeline ever recorded (I11).
    pub unique_timelines: bool,
    /// Nobody rewinds before the new epoch is committed (I12).
    pub rewind_after_commit: bool,
    /// A leader that is cut off stops itself (§5, I15).
    pub fencing: bool,
    /// A recorded leader without a fresh authority starts as a standby (§4 "every start as master").
    pub start_as_standby: bool,
    /// Only streaming members are added to an electorate (§6).
    pub add_only_streaming: bool,
    /// A new boot leads on only with the volume's lock on the same node (§2).
    pub lead_on_needs_lock: bool,
    /// The seal of a former leader stands for its former terms only when no older life of it can still lead (§2).
    pub doubt_older_lives: bool,
    /// The epoch is committed only when w members have flushed its own first record (I8).
    pub commit_own_epoch: bool,
    /// A deadline counts from before the request was sent (§5).
    pub deadline_before_request: bool,
    /// A record that is older than one seen before is no record (§2).
    pub newest_record: bool,
    /// Names follow only a record that this agent has read, never one kept from earlier (I9).
    pub names_of_read_record: bool,
    /// No second change of the electorate before the names of the first are in force (I9).
    pub one_change_at_a_time: bool,
    /// A record that says that the cluster never had data is not believed beside a member's data (K15).
    pub initialise_only_uninitialised: bool,
    /// A proof of a win is void once this member has sealed itself against that epoch (§2, I2).
    pub seal_binds_token: bool,
    /// One term is one start as master: the proof of a later swap in a term that was led already starts nothing (§4).
    pub start_once: bool,
    /// A lease is waited for again on the snapshot that is swapped on (§5).
    pub lease_at_win: bool,
    /// A lease gives authority from this agent's own write of it alone, never from a look at it (§5).
    pub own_lease: bool,
    /// A record of the same epoch and an older generation than one seen before is no record (§2).
    pub newest_generation: bool,
    /// A record that is older than what a peer says it has seen is not swapped on (§2).
    pub heard_generation: bool,
    /// A forced promotion is for the epoch that the human saw, and no other.
    pub force_once: bool,
    /// Until its epoch is committed, nobody follows a forced leader who has not counted its seal (I8).
    pub force_counts: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            all_electorates: true,
            maximum_position: true,
            fresh_seals: true,
            pre_vote: true,
            gate_after_quorum: true,
            keep_electorates: true,
            joint_change: true,
            unique_timelines: true,
            rewind_after_commit: true,
            fencing: true,
            start_as_standby: true,
            add_only_streaming: true,
            lead_on_needs_lock: true,
            doubt_older_lives: true,
            commit_own_epoch: true,
            deadline_before_request: true,
            newest_record: true,
            names_of_read_record: true,
            one_change_at_a_time: true,
            initialise_only_uninitialised: true,
            seal_binds_token: true,
            start_once: true,
            lease_at_win: true,
            own_lease: true,
            newest_generation: true,
            heard_generation: true,
            force_once: true,
            force_counts: true,
        }
    }
}
