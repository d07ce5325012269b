//! What can happen, and the queue of what will.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;

use ha::{Action, Announcement, MemberName, Names, Record, Settings};

use crate::api_server::{Request, Response};
use crate::faults::Heal;
use crate::faults::ambush::Blow;
use crate::wal::Rec;

/// Something that happens at an instant. Lives (`agent`, `pg`, `pod`) make events of the dead fall flat.
#[derive(Debug, Clone)]
#[allow(
    missing_docs,
    reason = "m is a member's index, agent, pg and pod are lives; the rest says what it is"
)]
pub enum Event {
    /// An agent looks at the world.
    Tick { m: usize, agent: u64 },
    /// An announcement arrives.
    Announce { to: usize, said: Rc<Announcement> },
    /// A connection to a peer was refused.
    Refused { m: usize, agent: u64, peer: MemberName },
    /// A walreceiver tries to connect.
    Connect { m: usize, pg: u64 },
    /// WAL arrives at a standby.
    Wal { conn: u64, start: usize, records: Vec<Rec> },
    /// A standby's flush ends.
    StandbyFlush { m: usize, pg: u64, conn: u64, to: usize },
    /// A standby's reply arrives at its master.
    Reply { conn: u64, flushed: usize },
    /// A connection is looked after.
    Keepalive { conn: u64 },
    /// A master's flush ends.
    PrimaryFlush { m: usize, pg: u64, to: usize },
    /// A start of Postgres ends.
    Started { m: usize, pg: u64 },
    /// A promotion's end-of-recovery record is written.
    Promoted { m: usize, pg: u64 },
    /// The checkpoint after a promotion is done.
    Checkpointed { m: usize, pg: u64, timeline: u32 },
    /// A promotion's files are planted, its names rendered.
    PromoteStep { m: usize, agent: u64, timeline: u32, names: Names },
    /// A promotion has removed `standby.signal` (P24).
    SignalRemoved { m: usize, pg: u64 },
    /// A client cancels its wait (P2).
    Cancel { m: usize, pg: u64, at: usize },
    /// A client reads from any master whose gate is open.
    ClientRead,
    /// New wishes reach a member.
    Wishes { m: usize, settings: Rc<Settings> },
    /// What was to be kept beside the promise is on disk.
    Kept { m: usize, agent: u64 },
    /// A human wants this member to lead, whatever is lost.
    Asked { m: usize },
    /// A member is cut off from everybody.
    Cut { m: usize },
    /// A member is cut off from the API server.
    CutApi { m: usize },
    /// A later part of a fault.
    Struck { blow: Blow },
    /// A frozen node thaws; its clock stood still for so long.
    Thaw { m: usize, stood: u64 },
    /// The end of the log is established.
    Measured { m: usize, pg: u64, upstreams: u64 },
    /// New names are surely in force.
    NamesInForce { m: usize, pg: u64, change: u64 },
    /// A fast stop looks whether it is done.
    Stopping { m: usize, pg: u64, agent: u64, since: u64 },
    /// A step of the driver ends.
    Done { m: usize, agent: u64, action: Box<Action> },
    /// The second step of a seal: the promise.
    SealPromise { m: usize, agent: u64, below: u64 },
    /// A request arrives at the API server.
    Request { m: usize, agent: u64, id: u64, sent: u64, request: Box<Request> },
    /// Its answer arrives.
    Response { m: usize, agent: u64, id: u64, sent: u64, response: Box<Response> },
    /// No answer came.
    Timeout { m: usize, agent: u64, id: u64 },
    /// A watch delivers.
    Watch { m: usize, agent: u64, record: Rc<Record>, version: u64 },
    /// A client writes.
    ClientWrite,
    /// Something breaks.
    Fault,
    /// Something is mended.
    Heal(Heal),
    /// A supervisor looks after its agent.
    Supervise { m: usize, pod: u64 },
    /// A pod starts.
    PodStart { m: usize },
    /// An agent starts.
    AgentStart { m: usize, pod: u64 },
    /// All faults end.
    Calm,
}

#[derive(Debug)]
struct Scheduled {
    at: u64,
    seq: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

/// Events in order of time, then of scheduling.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Scheduled>,
    seq: u64,
}

impl Queue {
    /// Adds an event.
    pub fn push(&mut self, at: u64, event: Event) {
        self.seq += 1;
        self.heap.push(Scheduled { at, seq: self.seq, event });
    }

    /// The next event and its time.
    pub fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|next| (next.at, next.event))
    }
}
