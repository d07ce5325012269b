//! The decision: what one agent does next, from what it knows and remembers.

use crate::decision::Decision;
use crate::memory::Memory;
use crate::types::Instant;
use crate::view::View;

/// What to do now, why, and when to look again. Total: every view has an answer, most often "nothing, because".
pub fn decide(memory: &mut Memory, view: &View, now: Instant) -> Decision {
    let _ = (memory, view, now);
    Decision::default()
}
