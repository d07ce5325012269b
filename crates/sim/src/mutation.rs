//! Rules that can be switched off, one at a time: each must be caught, or serve redundancy or progress only.

use ha::Rules;

/// Rules that the driver and PostgreSQL keep, not `decide`.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "a list of switches, one per rule, each named")]
pub struct WorldRules {
    /// A seal stops the stream before it is reported (I2).
    pub seal_stops_stream: bool,
    /// A seal is on disk before it is reported (I3).
    pub seal_durable: bool,
    /// The API server compares versions.
    pub compare_and_swap: bool,
    /// The names of the new electorate are in force before the promotion (I7).
    pub names_before_promotion: bool,
    /// Names are believed only when surely in force (rule 7a).
    pub names_surely_in_force: bool,
    /// A standby flushes before it acknowledges.
    pub flush_before_reply: bool,
    /// A new volume has a new incarnation (I3).
    pub new_incarnation: bool,
    /// The end of the log is measured, not taken from a hint (P8).
    pub measure_end: bool,
    /// Timeline files are planted, so that a promotion takes the recorded timeline (P11).
    pub plant_timelines: bool,
    /// Files of a promotion that did not complete are removed (P11).
    pub remove_planted: bool,
    /// `standby.signal` is made before every start without authority (P24).
    pub signal_before_start: bool,
    /// The gate is closed before every start and every promotion (P6, P21).
    pub close_gate: bool,
    /// Every process of an older life has ended before a start (P7).
    pub end_every_process: bool,
    /// A compare-and-swap names the version of the snapshot that was decided on.
    pub snapshot_version: bool,
    /// The write route is guarded by the epoch (S5).
    pub route_guard: bool,
    /// A rewound or cloned member reports only once it was consistent (§4 step 3).
    pub consistent_before_report: bool,
    /// A rewind is marked on the promise before it begins (§4 step 10).
    pub mark_rewinding: bool,
}

impl Default for WorldRules {
    fn default() -> Self {
        Self {
            seal_stops_stream: true,
            seal_durable: true,
            compare_and_swap: true,
            names_before_promotion: true,
            names_surely_in_force: true,
            flush_before_reply: true,
            new_incarnation: true,
            measure_end: true,
            plant_timelines: true,
            remove_planted: true,
            signal_before_start: true,
            close_gate: true,
            end_every_process: true,
            snapshot_version: true,
            route_guard: true,
            consistent_before_report: true,
            mark_rewinding: true,
        }
    }
}

/// A rule switched off.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is switched off, in words.
    pub what: &'static str,
    /// Whether the invariants must catch it; the others serve redundancy or progress.
    pub caught: bool,
    switch: fn(&mut Rules, &mut WorldRules),
}

impl Mutation {
    /// The rules without this one.
    pub fn rules(&self) -> (Rules, WorldRules) {
        let (mut rules, mut world) = (Rules::default(), WorldRules::default());
        (self.switch)(&mut rules, &mut world);
        (rules, world)
    }

    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self {
            name: "newest-electorate-only",
            what: "an election satisfies only the newest electorate (I4)",
            caught: true,
            switch: |r, _| r.all_electorates = false,
        },
        Self {
            name: "any-position",
            what: "a candidate need not be at the maximum of those it counts (I5)",
            caught: true,
            switch: |r, _| r.maximum_position = false,
        },
        Self {
            name: "stale-seals",
            what: "seals of an older epoch count (§4 step 4)",
            caught: true,
            switch: |r, _| r.fresh_seals = false,
        },
        Self {
            name: "gate-before-quorum",
            what: "the gate opens before w members flushed the first record (I13)",
            caught: true,
            switch: |r, _| r.gate_after_quorum = false,
        },
        Self {
            name: "drop-electorates",
            what: "a winner forgets the older electorates at once (I8)",
            caught: true,
            switch: |r, _| r.keep_electorates = false,
        },
        Self {
            name: "single-change",
            what: "an electorate is replaced, not widened and narrowed (I9)",
            caught: true,
            switch: |r, _| r.joint_change = false,
        },
        Self {
            name: "reused-timelines",
            what: "a new timeline is only above the winner's own (I11)",
            caught: true,
            switch: |r, _| r.unique_timelines = false,
        },
        Self {
            name: "start-as-master",
            what: "a recorded leader starts as master without a fresh authority",
            caught: true,
            switch: |r, _| r.start_as_standby = false,
        },
        Self {
            name: "no-fencing",
            what: "a leader that is cut off does not stop (§5, I15)",
            caught: true,
            switch: |r, _| r.fencing = false,
        },
        Self {
            name: "late-proof",
            what: "a late proof of a win is used although the winner has sealed itself against that epoch (I2)",
            caught: true,
            switch: |r, _| r.seal_binds_token = false,
        },
        Self {
            name: "no-pre-vote",
            what: "a lonely suspicion seals (§4 step 2): progress",
            caught: false,
            switch: |r, _| r.pre_vote = false,
        },
        Self {
            name: "rewind-early",
            what: "a rewind before the epoch is committed (I12): redundancy",
            caught: false,
            switch: |r, _| r.rewind_after_commit = false,
        },
        Self {
            name: "add-silent-members",
            what: "members that do not stream are added (§6): progress",
            caught: false,
            switch: |r, _| r.add_only_streaming = false,
        },
        Self {
            name: "seal-keeps-stream",
            what: "a seal is reported while the stream goes on (I2)",
            caught: true,
            switch: |_, w| w.seal_stops_stream = false,
        },
        Self {
            name: "seal-in-memory",
            what: "a seal does not survive a restart (I3)",
            caught: true,
            switch: |_, w| w.seal_durable = false,
        },
        Self {
            name: "blind-put",
            what: "the record is written without comparing versions",
            caught: true,
            switch: |_, w| w.compare_and_swap = false,
        },
        Self {
            name: "promote-without-names",
            what: "a promotion before the names are set (I7): redundant to the gate, which waits for them",
            caught: false,
            switch: |_, w| w.names_before_promotion = false,
        },
        Self {
            name: "names-from-show",
            what: "names are believed before every process uses them (7a)",
            caught: true,
            switch: |_, w| w.names_surely_in_force = false,
        },
        Self {
            name: "reply-before-flush",
            what: "a standby acknowledges what it has only received",
            caught: true,
            switch: |_, w| w.flush_before_reply = false,
        },
        Self {
            name: "same-incarnation",
            what: "an empty volume keeps the name of the lost one (I3)",
            caught: true,
            switch: |_, w| w.new_incarnation = false,
        },
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|mutation| mutation.name == name)
    }
}
