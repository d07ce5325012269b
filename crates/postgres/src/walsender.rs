//! `IDENTIFY_SYSTEM` on a replication connection to the member's own server.
//!
//! The one question to which a standby answers with the timeline that it *replays* (§4 step 3d); SQL functions show
//! only the last checkpoint's or the receiver's. The driver crate has no replication mode, and the exchange is four
//! messages long. Proved by `tests/servers/seal.rs`.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use ha::{Lsn, Timeline};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::layout::Layout;
use crate::session::APPLICATION_NAME;
use crate::settings::SUPERUSER;

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The same in every copy of one cluster.
    pub system_identifier: u64,
    /// The timeline that it writes, or replays.
    pub timeline: Timeline,
    /// What it has flushed, or on a standby the further of received and replayed on that timeline.
    pub flushed: Lsn,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum IdentifyError {
    /// The connection failed.
    #[error("cannot ask over a replication connection")]
    Connection(#[source] io::Error),
    /// No answer within the bound.
    #[error("no answer to IDENTIFY_SYSTEM within {0:?}")]
    Timeout(Duration),
    /// The server refused.
    #[error("the server refused IDENTIFY_SYSTEM: {0}")]
    Refused(String),
    /// The answer is not of the expected form.
    #[error("unexpected answer to IDENTIFY_SYSTEM: {0:?}")]
    Answer(Vec<String>),
}

/// Asks the member's own server.
pub async fn identify_system(layout: &Layout, bound: Duration) -> Result<SystemIdentity, IdentifyError> {
    match tokio::time::timeout(bound, ask(layout)).await {
        Ok(answer) => answer,
        Err(_) => Err(IdentifyError::Timeout(bound)),
    }
}

async fn ask(layout: &Layout) -> Result<SystemIdentity, IdentifyError> {
    let stream = UnixStream::connect(layout.socket()).await.map_err(IdentifyError::Connection)?;
    let mut wire = Wire { stream, buffer: BytesMut::with_capacity(1024) };
    let parameters = [
        ("user", SUPERUSER),
        ("database", "replication"),
        ("replication", "true"),
        ("application_name", APPLICATION_NAME),
    ];
    let mut out = BytesMut::new();
    frontend::startup_message(parameters, &mut out).map_err(IdentifyError::Connection)?;
    wire.send(&mut out).await?;
    wire.until_ready().await?;
    frontend::query("IDENTIFY_SYSTEM", &mut out).map_err(IdentifyError::Connection)?;
    wire.send(&mut out).await?;
    let row = wire.until_ready().await?;
    frontend::terminate(&mut out);
    // The answer is there; whether the farewell arrives does not matter.
    let _ = wire.send(&mut out).await;
    parse(row)
}

fn parse(row: Vec<String>) -> Result<SystemIdentity, IdentifyError> {
    let identity = || {
        Some(SystemIdentity {
            system_identifier: row.first()?.parse().ok()?,
            timeline: Timeline(row.get(1)?.parse().ok()?),
            flushed: row.get(2)?.parse().ok()?,
        })
    };
    identity().ok_or(IdentifyError::Answer(row))
}

struct Wire {
    stream: UnixStream,
    buffer: BytesMut,
}

impl Wire {
    async fn send(&mut self, out: &mut BytesMut) -> Result<(), IdentifyError> {
        self.stream.write_all(&out.split()).await.map_err(IdentifyError::Connection)
    }

    /// Reads up to `ReadyForQuery`; the last row on the way, as text.
    async fn until_ready(&mut self) -> Result<Vec<String>, IdentifyError> {
        let mut last = Vec::new();
        loop {
            while let Some(message) = Message::parse(&mut self.buffer).map_err(IdentifyError::Connection)? {
                match message {
                    Message::ReadyForQuery(_) => return Ok(last),
                    Message::DataRow(row) => last = texts(&row).map_err(IdentifyError::Connection)?,
                    Message::ErrorResponse(body) => {
                        return Err(IdentifyError::Refused(error_text(&body)));
                    }
                    Message::AuthenticationOk
                    | Message::ParameterStatus(_)
                    | Message::BackendKeyData(_)
                    | Message::RowDescription(_)
                    | Message::CommandComplete(_)
                    | Message::NoticeResponse(_) => {}
                    _ => return Err(IdentifyError::Refused("it asks for another authentication".to_owned())),
                }
            }
            let read = self.stream.read_buf(&mut self.buffer).await.map_err(IdentifyError::Connection)?;
            if read == 0 {
                return Err(IdentifyError::Connection(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

fn texts(row: &postgres_protocol::message::backend::DataRowBody) -> io::Result<Vec<String>> {
    let mut ranges = row.ranges();
    let mut out = Vec::new();
    while let Some(range) = ranges.next()? {
        let bytes = range.and_then(|r| row.buffer().get(r)).unwrap_or_default();
        out.push(String::from_utf8_lossy(bytes).into_owned());
    }
    Ok(out)
}

fn error_text(body: &postgres_protocol::message::backend::ErrorResponseBody) -> String {
    let mut fields = body.fields();
    let mut text = Vec::new();
    while let Ok(Some(field)) = fields.next() {
        // C: SQLSTATE, M: message.
        if matches!(field.type_(), b'C' | b'M') {
            text.push(String::from_utf8_lossy(field.value_bytes()).into_owned());
        }
    }
    text.join(" ")
}
