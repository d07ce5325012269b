//! The decision log: what an agent was told and decided, one JSON object a line, so that anybody can feed it to the
//! same code again (`cargo xtask sim --replay FILE`).
//!
//! `decide` is a function of memory, view and instant, and memory begins empty at every start of an agent: so the
//! start, every won swap and every view with its instant are all there is. A log that begins in the middle, or that
//! lacks a line, does not replay. It never holds a secret: a view has none.

use serde::{Deserialize, Serialize};

use crate::decide::decide;
use crate::decision::{Decision, FenceToken};
use crate::memory::Memory;
use crate::types::{Epoch, Instant, Timeline, Version};
use crate::view::View;

/// One line, as an agent writes it. In this order: `Started` once; before each `Decided` a `Won` for every
/// [`Memory::won`] since the last; `Decided` for every [`decide`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "line")]
pub enum Line<'a> {
    /// The agent started with an empty memory.
    Started,
    /// [`Memory::won`] was called with this token.
    Won {
        /// The token.
        fence: &'a FenceToken,
    },
    /// [`decide`] was called.
    Decided {
        /// With this instant.
        now: Instant,
        /// With this view.
        view: &'a View,
        /// And answered this.
        decision: &'a Decision,
    },
}

/// One line, as it is read. `D` is whatever holds a decision as it was written, such as a JSON value.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", tag = "line")]
pub enum ReadLine<D> {
    /// The agent started.
    Started,
    /// A swap was won.
    Won {
        /// What the token said.
        fence: ReadFence,
    },
    /// A decision.
    Decided {
        /// The instant.
        now: Instant,
        /// The view.
        view: Box<View>,
        /// What the agent decided.
        decision: D,
    },
}

/// A token as it was written. No token can be made of it but inside a [`Replay`], which acts on nothing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadFence {
    epoch: Epoch,
    timeline: Timeline,
    version: Version,
}

/// An agent's memory, fed from its log.
#[derive(Debug, Default)]
pub struct Replay {
    memory: Memory,
}

impl Replay {
    /// Takes a line in; for a decision, what the same code decides now and what the agent had decided.
    pub fn take<D>(&mut self, line: ReadLine<D>) -> Option<(Decision, D)> {
        match line {
            ReadLine::Started => {
                self.memory = Memory::default();
                None
            }
            ReadLine::Won { fence } => {
                self.memory.won(FenceToken::read(fence.epoch, fence.timeline, fence.version));
                None
            }
            ReadLine::Decided { now, view, decision } => {
                Some((decide(&mut self.memory, &view, now), decision))
            }
        }
    }
}
