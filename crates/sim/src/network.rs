//! Links between members and to the API server, each direction for itself.

use crate::dice::Dice;

/// One direction of a link.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// Anything passes.
    pub up: bool,
    /// Lost announcements in a thousand, besides those of the whole network.
    pub loss: u64,
    /// Milliseconds more than usual, at most.
    pub delay: u64,
}

/// A link without a fault.
const WHOLE: Link = Link { up: true, loss: 0, delay: 0 };

/// Which messages pass.
#[derive(Debug)]
pub struct Network {
    /// `links[from][to]`.
    links: Vec<Vec<Link>>,
    /// Each member's way to the API server, both directions.
    pub api: Vec<bool>,
    /// Lost announcements in a thousand.
    pub loss: u64,
    /// Announcements that come twice, in a thousand.
    pub twice: u64,
    /// Usual delay in milliseconds, at most.
    pub delay: u64,
}

impl Network {
    /// A whole network of `n` members.
    pub fn new(n: usize, dice: &mut Dice) -> Self {
        let loss = if dice.permille(300) { dice.between(0, 200) } else { 0 };
        let twice = if dice.permille(300) { dice.between(0, 100) } else { 0 };
        let delay = if dice.permille(200) { dice.between(20, 150) } else { dice.between(1, 5) };
        Self { links: vec![vec![WHOLE; n]; n], api: vec![true; n], loss, twice, delay }
    }

    /// The link now.
    pub fn link(&self, from: usize, to: usize) -> Link {
        self.links.get(from).and_then(|row| row.get(to)).copied().unwrap_or(WHOLE)
    }

    /// The same, to change.
    pub fn link_mut(&mut self, from: usize, to: usize) -> Option<&mut Link> {
        self.links.get_mut(from).and_then(|row| row.get_mut(to))
    }

    /// Whether a message passes now.
    pub fn passes(&self, from: usize, to: usize) -> bool {
        from == to || self.link(from, to).up
    }

    /// Cuts or mends everything to and from this member.
    pub fn isolate(&mut self, m: usize, up: bool) {
        for other in 0..self.links.len() {
            for (from, to) in [(m, other), (other, m)] {
                if let Some(link) = self.link_mut(from, to) {
                    *link = Link { up, ..WHOLE };
                }
            }
        }
    }

    /// One more end, with the links of this one.
    pub fn grow(&mut self, like: usize) {
        for row in &mut self.links {
            row.push(row.get(like).copied().unwrap_or(WHOLE));
        }
        self.links.push(self.links.get(like).cloned().unwrap_or_default());
        self.api.push(self.api.get(like).copied().unwrap_or(true));
    }

    /// Mends all links; the network's own loss and delay stay.
    pub fn mend(&mut self) {
        for row in &mut self.links {
            row.fill(WHOLE);
        }
        self.api.fill(true);
    }

    /// Mends everything.
    pub fn heal(&mut self) {
        self.mend();
        self.loss = 0;
        self.twice = 0;
        self.delay = self.delay.min(20);
    }
}
