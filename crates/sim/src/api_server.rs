//! The API server: one record, one write route, compare-and-swap.

use ha::{Boot, Epoch, Record, Swap};

/// What an agent asks.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are the record's own words")]
pub enum Request {
    /// A fresh read of record and route.
    Get,
    /// A compare-and-swap on the record.
    Swap(Swap),
    /// Point the write route at this life, guarded by the epoch.
    Publish { epoch: Epoch, boot: Boot },
    /// Empty the route if it points at this life.
    Retract { boot: Boot },
}

/// What it answers.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are the record's own words")]
pub enum Response {
    /// The present state.
    State { record: Record, version: u64, route: Option<(Epoch, Boot)> },
    /// The swap was made.
    Swapped { swap: Swap, version: u64 },
    /// The version differed; the present state.
    Conflict { record: Record, version: u64 },
    /// The route as it is now.
    Route { route: Option<(Epoch, Boot)> },
}

/// Its state.
#[derive(Debug)]
pub struct ApiServer {
    /// The record.
    pub record: Record,
    /// Its version.
    pub version: u64,
    /// The write route: under which epoch, at which life.
    pub route: Option<(Epoch, Boot)>,
    /// Nobody is answered.
    pub down: bool,
    /// Requests that take effect and are not answered, in a thousand.
    pub lost_answers: u64,
}
