//! Links between members and to the API server, each direction for itself.

use crate::dice::Dice;

/// Which messages pass.
#[derive(Debug)]
pub struct Network {
    /// `up[from][to]`.
    pub up: Vec<Vec<bool>>,
    /// Each member's way to the API server, both directions.
    pub api: Vec<bool>,
    /// Lost announcements in a thousand.
    pub loss: u64,
    /// Usual delay in milliseconds, at most.
    pub delay: u64,
}

impl Network {
    /// A whole network of `n` members.
    pub fn new(n: usize, dice: &mut Dice) -> Self {
        let loss = if dice.permille(300) { dice.between(0, 200) } else { 0 };
        let delay = if dice.permille(200) { dice.between(20, 150) } else { dice.between(1, 5) };
        Self { up: vec![vec![true; n]; n], api: vec![true; n], loss, delay }
    }

    /// Whether a message passes now.
    pub fn passes(&self, from: usize, to: usize) -> bool {
        from == to || self.up.get(from).and_then(|row| row.get(to)).copied().unwrap_or(false)
    }

    /// Mends everything.
    pub fn heal(&mut self) {
        for row in &mut self.up {
            row.fill(true);
        }
        self.api.fill(true);
        self.loss = 0;
        self.delay = self.delay.min(20);
    }
}
