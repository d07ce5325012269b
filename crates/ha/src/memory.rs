//! What one agent remembers between decisions: observations with the instant they were first made, reports that
//! outlive their members, and proofs of won swaps. Losing it all (a restarted agent) must never be unsafe, only slower.

use crate::decision::FenceToken;
use crate::rules::Rules;

/// One agent's memory; start with [`Memory::default`] at every start of the agent.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub(crate) rules: Rules,
    pub(crate) won: Option<FenceToken>,
}

impl Memory {
    /// A memory with some rules switched off: for mutation tests in the simulator only.
    pub fn with_rules(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// To be called by the driver when a swap of this very process is confirmed ([`crate::Swap::won`]), before the
    /// next `decide`. A newer token replaces an older one.
    pub fn won(&mut self, token: FenceToken) {
        if self.won.as_ref().is_none_or(|old| old.epoch() <= token.epoch()) {
            self.won = Some(token);
        }
    }
}
