//! Rules that can be switched off, one at a time: each must be caught, or serve redundancy or progress only.

use ha::Rules;

use crate::run::Kind;

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
    /// A rewind is marked on the promise before it begins (§4 step 10).
    pub mark_rewinding: bool,
    /// `restore_command` is cleared before a promotion (§4 step 6).
    pub strip_restore: bool,
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
            mark_rewinding: true,
            strip_restore: true,
        }
    }
}

/// What a rule that no invariant misses is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// An invariant breaks without it.
    Safety,
    /// Another rule stands behind it.
    Redundancy,
    /// Without it the cluster is slower, or waits more often for a human.
    Progress,
}

/// A rule switched off.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// Its name on the command line and in the table.
    pub name: &'static str,
    /// What is switched off, in words.
    pub what: &'static str,
    /// What it is good for.
    pub serves: Serves,
    /// Faults that come ten times as often as usual, to find it sooner.
    pub focus: &'static [&'static str],
    /// In worlds of asynchronous mode.
    pub asynchronous: bool,
    /// What is missed is progress (L1) alone: other rules stand between its lack and a loss.
    pub stands_still: bool,
    switch: fn(&mut Rules, &mut WorldRules),
}

/// One of safety, found in worlds of every kind.
const fn safety(name: &'static str, what: &'static str, switch: fn(&mut Rules, &mut WorldRules)) -> Mutation {
    Mutation {
        name,
        what,
        serves: Serves::Safety,
        focus: &[],
        asynchronous: false,
        stands_still: false,
        switch,
    }
}

impl Mutation {
    /// The rules without this one.
    pub fn rules(&self) -> (Rules, WorldRules) {
        let (mut rules, mut world) = (Rules::default(), WorldRules::default());
        self.switch_off(&mut rules, &mut world);
        (rules, world)
    }

    /// Switches this rule off, beside those that are off already.
    pub fn switch_off(&self, rules: &mut Rules, world: &mut WorldRules) {
        (self.switch)(rules, world);
    }

    /// The kind of world that it is looked for in.
    pub fn kind(&self) -> Kind {
        Kind { faults: true, asynchronous: self.asynchronous, focus: self.focus }
    }

    const fn focused(self, focus: &'static [&'static str]) -> Self {
        Self { focus, ..self }
    }

    const fn serving(self, serves: Serves) -> Self {
        Self { serves, ..self }
    }

    const fn standing_still(self) -> Self {
        Self { stands_still: true, ..self }
    }

    const fn in_asynchronous_mode(self) -> Self {
        Self { asynchronous: true, ..self }
    }

    /// All of them.
    pub const ALL: &'static [Self] = &[
        safety("newest-electorate-only", "an election satisfies only the newest electorate (I4)", |r, _| {
            r.all_electorates = false;
        }),
        safety("any-position", "a candidate need not be at the maximum of those it counts (I5)", |r, _| {
            r.maximum_position = false;
        }),
        safety("stale-seals", "seals of an older epoch count (§4 step 4)", |r, _| r.fresh_seals = false),
        safety("seal-keeps-stream", "a seal is reported while the stream goes on (I2)", |_, w| {
            w.seal_stops_stream = false;
        }),
        safety("seal-in-memory", "a seal does not survive a restart (I3)", |_, w| w.seal_durable = false),
        safety(
            "end-from-a-hint",
            "a startup process that sleeps is taken for the end of the log (P8)",
            |_, w| w.measure_end = false,
        ),
        safety("reply-before-flush", "a standby acknowledges what it has only received (I1)", |_, w| {
            w.flush_before_reply = false;
        }),
        safety(
            "same-incarnation",
            "an empty volume keeps the name of the lost one, so application name and slot too (I3, I10)",
            |_, w| w.new_incarnation = false,
        )
        .focused(&["volume"]),
        safety("blind-put", "the record is written without comparing versions (§2)", |_, w| {
            w.compare_and_swap = false;
        }),
        safety(
            "refreshed-version",
            "a swap names the newest version that its sender knows, not the snapshot's (patroni#3718)",
            |_, w| w.snapshot_version = false,
        ),
        safety("older-record", "a record older than one seen before is believed (§2)", |r, _| {
            r.newest_record = false;
        })
        .focused(&["record", "power"]),
        safety(
            "older-write",
            "an older write of the same epoch than one seen before is believed (§2)",
            |r, _| r.newest_generation = false,
        )
        .focused(&["record"]),
        safety(
            "deaf-to-newer-writes",
            "a record is swapped on although a peer has seen a later write (§2): its own memory stands behind it",
            |r, _| r.heard_generation = false,
        )
        .focused(&["record"])
        .serving(Serves::Redundancy),
        safety(
            "force-again",
            "a forced promotion that a human asked for in one epoch takes place in later ones, too (F1)",
            |r, _| r.force_once = false,
        )
        .focused(&["promote"]),
        safety(
            "force-taken-for-safe",
            "before its epoch is committed, a forced leader's successor is elected without its copy (I8)",
            |r, _| r.force_counts = false,
        )
        .focused(&["two-left"]),
        safety(
            "late-proof",
            "a late proof of a win is used although the winner has sealed itself against that epoch (I2)",
            |r, _| r.seal_binds_token = false,
        )
        .focused(&["win"]),
        safety(
            "second-start",
            "the late proof of a renewal starts a master that has released its term already (§4)",
            |r, _| r.start_once = false,
        )
        .focused(&["renewal"])
        .in_asynchronous_mode(),
        safety(
            "lead-on-without-lock",
            "a later life leads on although an older one may still run elsewhere (§2)",
            |r, _| r.lead_on_needs_lock = false,
        )
        .focused(&["force"]),
        safety(
            "vouch-for-older-life",
            "a former leader's seal stands for its terms although an older life may still lead (§2)",
            |r, _| r.doubt_older_lives = false,
        )
        .focused(&["force"]),
        safety(
            "start-as-master",
            "a recorded leader starts as master without a fresh authority (§4): it starts again for ever, behind its gate",
            |r, _| r.start_as_standby = false,
        )
        // The gate and the leader's own fencing stand before a loss: scenario `start-as-master-without-the-gate`.
        .standing_still(),
        safety(
            "initialise-again",
            "a record that says that the cluster never had data is believed beside a member's data (K15): its own memory of the record stands before it",
            |r, _| r.initialise_only_uninitialised = false,
        )
        .focused(&["record"])
        .serving(Serves::Redundancy),
        safety(
            "no-signal-file",
            "a start without authority does not make `standby.signal` first (P24)",
            |_, w| w.signal_before_start = false,
        ),
        safety(
            "backends-left",
            "Postgres starts while backends of its former life still run (P7)",
            |_, w| w.end_every_process = false,
        )
        .focused(&["postmaster"]),
        safety("gate-left-open", "the gate is not closed before a start or a promotion (P6, P21)", |_, w| {
            w.close_gate = false;
        })
        .focused(&["promotion"]),
        safety(
            "gate-before-quorum",
            "the gate opens before w members flushed the first record (I13)",
            |r, _| r.gate_after_quorum = false,
        )
        .focused(&["promotion"]),
        safety("names-from-show", "names are believed before every process uses them (7a)", |_, w| {
            w.names_surely_in_force = false;
        }),
        safety(
            "promote-without-names",
            "a promotion before the names are set (I7): the gate waits for them",
            |_, w| w.names_before_promotion = false,
        )
        .serving(Serves::Redundancy),
        safety(
            "names-of-kept-record",
            "a leader that has not read the record sets the names of one kept from earlier (I9)",
            |r, _| r.names_of_read_record = false,
        )
        .focused(&["change", "leave", "pod"]),
        safety("drop-electorates", "a winner forgets the older electorates at once (I8)", |r, _| {
            r.keep_electorates = false;
        })
        .focused(&["laggard"]),
        safety(
            "commit-old-epoch",
            "the epoch is committed before w members flushed its own first record (I8)",
            |r, _| r.commit_own_epoch = false,
        )
        .focused(&["laggard"]),
        safety("single-change", "an electorate is replaced, not widened and narrowed (I9)", |r, _| {
            r.joint_change = false;
        }),
        safety(
            "two-changes-at-once",
            "a second change begins before the names of the first are in force (I9)",
            |r, _| r.one_change_at_a_time = false,
        )
        .focused(&["turn"]),
        safety("reused-timelines", "a new timeline is only above the winner's own (I11)", |r, _| {
            r.unique_timelines = false;
        })
        .focused(&["promotion"]),
        safety(
            "no-planted-files",
            "no history files are planted, so PostgreSQL chooses the timeline (P11)",
            |_, w| w.plant_timelines = false,
        ),
        safety(
            "planted-files-left",
            "files of a promotion that came to nothing stay (P11): the member cannot stream",
            |_, w| w.remove_planted = false,
        )
        .focused(&["promotion"])
        // The member has lost nothing and is asked for its seal as ever; there is one copy less (L1).
        .standing_still(),
        safety(
            "restore-command-kept",
            "`restore_command` is not cleared before a promotion (§4 step 6)",
            |_, w| w.strip_restore = false,
        ),
        safety("unguarded-route", "the write route is moved without comparing epochs (S5)", |_, w| {
            w.route_guard = false;
        }),
        safety("unmarked-rewind", "a rewind that died half-way leaves no mark (§4 step 10)", |_, w| {
            w.mark_rewinding = false;
        })
        .focused(&["partition", "power"]),
        safety("rewind-early", "a rewind before the epoch is committed (I12)", |r, _| {
            r.rewind_after_commit = false;
        })
        .serving(Serves::Redundancy),
        safety("no-fencing", "a leader that is cut off does not stop (§5, I15)", |r, _| r.fencing = false)
            .focused(&["partition"]),
        safety(
            "deadline-from-the-answer",
            "a lease counts from when its renewal was answered, not from before it was sent (§5)",
            |r, _| r.deadline_before_request = false,
        )
        .focused(&["lease"])
        .in_asynchronous_mode(),
        safety(
            "lease-renewed-meanwhile",
            "a lease that had ended when a member sealed itself is not looked at again when it wins (§5)",
            |r, _| r.lease_at_win = false,
        )
        .focused(&["blind"])
        .in_asynchronous_mode(),
        safety(
            "lease-of-a-look",
            "an agent that has forgotten when it renewed its lease counts it from when it read the record (§5)",
            |r, _| r.own_lease = false,
        )
        .focused(&["forgetting"])
        .in_asynchronous_mode(),
        safety("no-pre-vote", "a lonely suspicion seals (§4 step 2)", |r, _| r.pre_vote = false)
            .serving(Serves::Progress),
        safety("add-silent-members", "members that do not stream are added (§6)", |r, _| {
            r.add_only_streaming = false;
        })
        .serving(Serves::Progress),
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|mutation| mutation.name == name)
    }
}
