//! What a log is made of: who writes, how and what, and each attempt with its times and outcome.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::outcome::{Failure, Outcome};

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// The attempt's number, from 1.
    pub(crate) n: i64,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// When it began, in microseconds since 1970 by the steady clock.
    pub(crate) began: u64,
    /// When its outcome was known, by the same clock.
    pub(crate) ended: u64,
    /// What the wall clock said when its outcome was known, in microseconds since 1970.
    #[serde(default)]
    pub(crate) wall: u64,
    /// The server that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<IpAddr>,
    /// The port it answered on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// The timeline that server wrote to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeline: Option<u32>,
    /// For a reader: whether the server was in recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) in_recovery: Option<bool>,
    /// For an append: its place in the list, as acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<i64>,
    /// The SQLSTATE of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<Box<str>>,
    /// A failure in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<Box<str>>,
}

/// What an acknowledgement says besides "done".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The server's address; none over a Unix socket.
    pub(crate) server: Option<IpAddr>,
    /// Its port.
    pub(crate) port: Option<u16>,
    /// Its timeline.
    pub(crate) timeline: Option<u32>,
    /// For a reader.
    pub(crate) in_recovery: Option<bool>,
    /// For an append.
    pub(crate) position: Option<i64>,
}

impl Attempt {
    /// An attempt that ends now.
    pub(crate) fn ended_now(n: i64, began: u64, result: Result<Answer, Failure>) -> Self {
        let (answer, failure) = match result {
            Ok(answer) => (answer, None),
            Err(failure) => (Answer::default(), Some(failure)),
        };
        Self {
            n,
            outcome: failure.as_ref().map_or(Outcome::Ok, Failure::outcome),
            began,
            ended: clock::now(),
            wall: clock::wall(),
            server: answer.server,
            port: answer.port,
            timeline: answer.timeline,
            in_recovery: answer.in_recovery,
            position: answer.position,
            code: failure.as_ref().and_then(Failure::code).map(String::into_boxed_str),
            text: failure.as_ref().map(Failure::text).map(String::into_boxed_str),
        }
    }

    /// Who answered, as one identity.
    pub(crate) fn member(&self) -> Option<Member> {
        self.server.map(|address| Member { address, port: self.port.unwrap_or_default() })
    }
}

/// A server as its clients know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    /// Its own address.
    pub(crate) address: IpAddr,
    /// Its own port; 0 when unknown.
    pub(crate) port: u16,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}", self.port),
            IpAddr::V6(address) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

/// What a journal is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The writer's name, as in its rows.
    pub(crate) writer: String,
    /// How it connects.
    pub(crate) mode: Mode,
    /// Where.
    pub(crate) host: String,
    /// The table, also the beginning of the names of the other tables.
    pub(crate) table: String,
    /// What it writes.
    #[serde(default)]
    pub(crate) workload: Workload,
    /// How many accounts or lists there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) size: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(size: &i32) -> bool {
    *size == 0
}

/// How a writer or a reader connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// A new connection for each attempt.
    Fresh,
    /// One connection, as long as it lasts.
    Kept,
    /// One connection, and every next one to the same address, whatever the name leads to by then.
    Pinned,
    /// A reader with a new connection for each query.
    Read,
}

impl Mode {
    /// The word in logs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Kept => "kept",
            Self::Pinned => "pinned",
            Self::Read => "read",
        }
    }
}

/// What a writer writes.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Workload {
    /// Single rows.
    #[default]
    Rows,
    /// Transfers between accounts, whose sum is kept.
    Transfers,
    /// Appends to lists.
    Appends,
    /// Rows that are deleted again a little later.
    Deletes,
}

impl Workload {
    /// The word in logs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Transfers => "transfers",
            Self::Appends => "appends",
            Self::Deletes => "deletes",
        }
    }
}
