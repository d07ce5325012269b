//! The API server: one record, one write route, compare-and-swap.

use std::collections::BTreeMap;

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
    /// There is no record, or one that is not ours.
    Hidden(Hidden),
    /// 429 or 500: nothing was done.
    Refused { id: u64 },
    /// The swap was made.
    Swapped { swap: Swap, version: u64 },
    /// The version differed; the present state.
    Conflict { record: Record, version: u64 },
    /// The route as it is now.
    Route { route: Option<(Epoch, Boot)> },
}

/// Why there is nothing to go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// Somebody deleted the record.
    Missing,
    /// Somebody edited it.
    Tampered,
}

/// Its state.
#[derive(Debug)]
pub struct ApiServer {
    /// Somebody deleted or edited the record; what it was stays in `record` for the human who mends it.
    pub hidden: Option<Hidden>,
    /// The newest record, while an older one was restored from a backup.
    pub newest: Option<Record>,
    /// What backups hold.
    pub backups: Vec<Record>,
    /// Requests that are answered with 429 or 500, in a thousand.
    pub refuses: u64,
    /// Requests that take effect only after the client gave up, in a thousand.
    pub late: u64,
    /// Requests that a proxy repeats, in a thousand.
    pub repeats: u64,
    /// Watch events that are late by seconds, in a thousand; half of them never come.
    pub lags: u64,
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
    /// Whose questions take effect and are not answered, and until when.
    pub deaf: BTreeMap<usize, u64>,
}
