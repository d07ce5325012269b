//! How large a world is searched. Within a bound the search is complete.

use ha::{Rules, Settings, WhenShort};

use crate::who::Who;

/// Rules that the driver, PostgreSQL and the API server keep, not `decide`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "a list of switches, one per rule, each named")]
pub struct WorldRules {
    /// A seal stops the stream before it is reported (I2).
    pub seal_stops_stream: bool,
    /// A seal survives the pod (I3).
    pub seal_durable: bool,
    /// The API server compares versions.
    pub compare_and_swap: bool,
    /// Names are believed only when surely in force (rule 7a).
    pub names_surely_in_force: bool,
}

impl Default for WorldRules {
    fn default() -> Self {
        Self {
            seal_stops_stream: true,
            seal_durable: true,
            compare_and_swap: true,
            names_surely_in_force: true,
        }
    }
}

/// A bound, and the rules that are in force within it.
#[derive(Debug, Clone)]
pub struct Bound {
    /// Its name on the command line.
    pub name: &'static str,
    /// Members, two or three.
    pub members: usize,
    /// The last epoch; the first is 1.
    pub epochs: u8,
    /// Acknowledgements a commit needs.
    pub acks: u8,
    /// What a leader does with too few standbys.
    pub when_short: WhenShort,
    /// Crashes of a Postgres, of an agent or of a pod, in all.
    pub crashes: u8,
    /// Commits.
    pub writes: u8,
    /// Electorate changes besides those that an election makes.
    pub changes: u8,
    /// Small enough for every test run.
    pub affordable: bool,
    /// Rules of `decide`.
    pub rules: Rules,
    /// Rules of the world.
    pub world: WorldRules,
}

impl Bound {
    const fn new(name: &'static str, members: usize, epochs: u8, rules: Rules, world: WorldRules) -> Self {
        Self {
            name,
            members,
            epochs,
            acks: 1,
            when_short: WhenShort::Continue,
            crashes: 1,
            writes: 1,
            changes: 1,
            affordable: false,
            rules,
            world,
        }
    }

    /// The bounds with names, smallest first.
    pub fn all() -> Vec<Self> {
        let new =
            |name, members, epochs| Self::new(name, members, epochs, Rules::default(), WorldRules::default());
        vec![
            Self { crashes: 0, changes: 0, ..new("tiny", 2, 2) },
            new("two", 2, 2),
            Self { affordable: true, ..new("two-three", 2, 3) },
            Self { crashes: 0, changes: 0, ..new("three", 3, 2) },
            Self { changes: 0, affordable: true, ..new("three-crash", 3, 2) },
            Self { crashes: 0, affordable: true, ..new("three-change", 3, 2) },
            new("three-both", 3, 2),
            Self { crashes: 0, changes: 0, ..new("three-three", 3, 3) },
            Self { changes: 0, when_short: WhenShort::Block, ..new("three-block", 3, 2) },
            Self { changes: 0, acks: 2, ..new("three-two-acks", 3, 2) },
        ]
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|bound| bound.name == name)
    }

    /// The cluster's wishes.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::new(Who::first(self.members).map(Who::name));
        settings.acks = u32::from(self.acks);
        settings.when_short = self.when_short;
        settings
    }
}
