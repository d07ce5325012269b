//! Rules that are switched off one at a time: the search must find a world in which each is missed, or the rule serves
//! redundancy or progress, or what it guards against lies outside the model.

use ha::Rules;

use crate::bound::{Bound, WorldRules};

/// A rule switched off.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// Its name, the same as in the simulator's table.
    pub name: &'static str,
    /// What is switched off, in words.
    pub what: &'static str,
    /// The smallest bound that finds it; none when no bound does.
    pub bound: Option<&'static str>,
    switch: fn(&mut Rules, &mut WorldRules),
}

impl Mutation {
    /// The bound without this rule.
    pub fn apply(&self, mut bound: Bound) -> Bound {
        (self.switch)(&mut bound.rules, &mut bound.world);
        bound
    }

    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self {
            name: "newest-electorate-only",
            what: "an election satisfies only the newest electorate (I4)",
            bound: Some("two-three"),
            switch: |r, _| r.all_electorates = false,
        },
        Self {
            name: "any-position",
            what: "a candidate need not be at the maximum of those it counts (I5)",
            bound: Some("two-three"),
            switch: |r, _| r.maximum_position = false,
        },
        Self {
            name: "stale-seals",
            what: "seals of an older epoch count (§4 step 4)",
            bound: Some("three-three"),
            switch: |r, _| r.fresh_seals = false,
        },
        Self {
            name: "gate-before-quorum",
            what: "the gate opens before w members flushed the first record (I13)",
            bound: Some("two-three"),
            switch: |r, _| r.gate_after_quorum = false,
        },
        Self {
            name: "drop-electorates",
            what: "a winner forgets the older electorates at once (I8)",
            bound: Some("three"),
            switch: |r, _| r.keep_electorates = false,
        },
        Self {
            name: "single-change",
            what: "an electorate is replaced, not widened and narrowed (I9)",
            bound: Some("two"),
            switch: |r, _| r.joint_change = false,
        },
        Self {
            name: "reused-timelines",
            what: "a new timeline is only above the winner's own (I11)",
            bound: Some("three-three"),
            switch: |r, _| r.unique_timelines = false,
        },
        Self {
            name: "start-as-master",
            what: "a recorded leader starts as master without a fresh authority: one life, one process here",
            bound: None,
            // What is heard of a later record would fence it, and it would start again, for ever: no bound holds that.
            switch: |r, _| (r.start_as_standby, r.heard_generation) = (false, false),
        },
        Self {
            name: "late-proof",
            what: "a late proof of a win is used although the winner has sealed itself against that epoch (I2)",
            bound: Some("two-three"),
            switch: |r, _| r.seal_binds_token = false,
        },
        Self {
            name: "seal-keeps-stream",
            what: "a seal is reported while the stream goes on (I2)",
            bound: Some("three"),
            switch: |_, w| w.seal_stops_stream = false,
        },
        Self {
            name: "seal-in-memory",
            what: "a seal does not survive a restart (I3)",
            bound: Some("two-three"),
            switch: |_, w| w.seal_durable = false,
        },
        Self {
            name: "blind-put",
            what: "the record is written without comparing versions",
            bound: Some("two"),
            switch: |_, w| w.compare_and_swap = false,
        },
        Self {
            name: "names-from-show",
            what: "names are believed before every process uses them (7a)",
            bound: Some("two"),
            switch: |_, w| w.names_surely_in_force = false,
        },
        Self {
            name: "no-pre-vote",
            what: "a lonely suspicion seals (§4 step 2): progress",
            bound: None,
            switch: |r, _| r.pre_vote = false,
        },
        Self {
            name: "rewind-early",
            what: "a rewind before the epoch is committed (I12): redundancy",
            bound: None,
            switch: |r, _| r.rewind_after_commit = false,
        },
        Self {
            name: "add-silent-members",
            what: "members that do not stream are added (§6): progress",
            bound: None,
            switch: |r, _| r.add_only_streaming = false,
        },
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|mutation| mutation.name == name)
    }
}
