//! Rules that are switched off, one at a time: each must be missed by an invariant.

use ha::election::Rules;

use crate::world::Kind;

/// One rule less.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "a list of switches, one per rule, each named")]
pub struct Mutation {
    /// Its name.
    pub name: &'static str,
    /// What is left of the candidate's rules.
    pub rules: Rules,
    /// In which worlds it is looked for.
    pub kind: Kind,
    /// The deadline is the TTL itself: no room for clocks.
    pub no_margin: bool,
    /// Deadlines by the wall clock.
    pub wall_clock: bool,
    /// Replaces without a `resourceVersion`.
    pub without_version: bool,
    /// All candidates have one identity.
    pub same_identity: bool,
}

impl Mutation {
    fn of(name: &'static str) -> Self {
        Self {
            name,
            rules: Rules::default(),
            kind: Kind::Chaos,
            no_margin: false,
            wall_clock: false,
            without_version: false,
            same_identity: false,
        }
    }

    fn without(name: &'static str, switch: impl FnOnce(&mut Rules)) -> Self {
        let mut mutation = Self::of(name);
        switch(&mut mutation.rules);
        mutation
    }

    /// All of them.
    pub fn all() -> Vec<Self> {
        vec![
            Self::without("count-from-the-answer", |rules| rules.from_request = false),
            Self::without("no-own-deadline", |rules| rules.own_deadline = false),
            Self::without("followers-own-ttl", |rules| rules.record_ttl = false),
            Self::without("conflict-is-own-success", |rules| rules.conflict_is_no_success = false),
            Self {
                kind: Kind::Gentle,
                ..Self::without("conflict-is-loss", |rules| rules.conflict_is_no_loss = false)
            },
            Self::without("unknown-prolongs", |rules| rules.unknown_prolongs_nothing = false),
            Self::without("create-over-missing", |rules| rules.missing_is_unknown = false),
            Self::without("never-held-is-free", |rules| rules.never_held_is_unknown = false),
            Self::without("release-before-stop", |rules| rules.stop_before_release = false),
            Self::without("same-epoch", |rules| rules.epoch_grows = false),
            Self::without("epochs-begin-at-one", |rules| rules.epoch_from_version = false),
            Self::without("old-epoch-after-a-lapse", |rules| rules.new_term_new_epoch = false),
            Self::without("timer-from-first-sight", |rules| rules.timer_from_renewal = false),
            Self { no_margin: true, ..Self::of("deadline-is-ttl") },
            Self { wall_clock: true, ..Self::of("wall-clock") },
            Self { without_version: true, ..Self::of("no-compare-and-swap") },
            Self { same_identity: true, ..Self::of("one-identity-for-two") },
        ]
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|mutation| mutation.name == name)
    }
}
