//! The members by number, and small sets of them: at most three, so that no index can miss.

use std::fmt;

use ha::{Incarnation, MemberId, MemberName};

/// One of at most three members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// `pg-0`.
    A,
    /// `pg-1`.
    B,
    /// `pg-2`.
    C,
}

impl Who {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    /// The first `n`.
    pub fn first(n: usize) -> impl Iterator<Item = Self> + Clone {
        Self::ALL.into_iter().take(n)
    }

    /// The ordinal.
    pub const fn ordinal(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
            Self::C => 2,
        }
    }

    /// The pod's name.
    pub fn name(self) -> MemberName {
        MemberName(format!("pg-{}", self.ordinal()))
    }

    /// The incarnation: no volume is lost in the model.
    pub const fn incarnation(self) -> Incarnation {
        Incarnation(0xA0 + self.ordinal() as u64)
    }

    /// The identity.
    pub fn id(self) -> MemberId {
        MemberId { name: self.name(), incarnation: self.incarnation() }
    }

    /// The member with this incarnation.
    pub fn of(incarnation: Incarnation) -> Option<Self> {
        Self::ALL.into_iter().find(|who| who.incarnation() == incarnation)
    }
}

/// One thing for each member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Each<T>(pub [T; 3]);

impl<T> Each<T> {
    /// This member's.
    pub const fn of(&self, who: Who) -> &T {
        let [a, b, c] = &self.0;
        match who {
            Who::A => a,
            Who::B => b,
            Who::C => c,
        }
    }

    /// This member's, to change.
    pub const fn of_mut(&mut self, who: Who) -> &mut T {
        let [a, b, c] = &mut self.0;
        match who {
            Who::A => a,
            Who::B => b,
            Who::C => c,
        }
    }

    /// Made from each member.
    pub fn from_fn(mut make: impl FnMut(Who) -> T) -> Self {
        Self(Who::ALL.map(&mut make))
    }
}

/// A set of members.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Set(u8);

impl Set {
    /// With this member.
    #[must_use]
    pub const fn with(self, who: Who) -> Self {
        Self(self.0 | 1 << who.ordinal())
    }

    /// Whether this member is in it.
    pub const fn contains(self, who: Who) -> bool {
        self.0 & 1 << who.ordinal() != 0
    }

    /// How many are in it.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether nobody is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members in order.
    pub fn iter(self) -> impl Iterator<Item = Who> {
        Who::ALL.into_iter().filter(move |who| self.contains(*who))
    }
}

impl FromIterator<Who> for Set {
    fn from_iter<I: IntoIterator<Item = Who>>(members: I) -> Self {
        members.into_iter().fold(Self::default(), Self::with)
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
