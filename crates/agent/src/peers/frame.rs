//! Announcements on the wire: four bytes of length, big-endian, then JSON: what the protocol knows, and beside it what
//! only people do. An agent of another version leaves out, or passes over, fields that it does not know.

use std::io;

use ha::Announcement;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Notes;

/// The longest message either side sends or takes.
pub(super) const MAX_FRAME: usize = 64 * 1024;

/// One message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Message {
    #[serde(flatten)]
    pub(super) announcement: Announcement,
    #[serde(flatten)]
    pub(super) notes: Notes,
}

/// The bytes of one message.
pub(super) fn encode(message: &Message) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{length} bytes are too long to send"),
        ));
    }
    let length = u32::try_from(length).map_err(io::Error::other)?;
    for (byte, digit) in frame.iter_mut().zip(length.to_be_bytes()) {
        *byte = digit;
    }
    Ok(frame)
}

/// The next message. `buffer` is only kept to be used again.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<Message> {
    let length = from.read_u32().await? as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{length} bytes are too long to take"),
        ));
    }
    buffer.resize(length, 0);
    from.read_exact(buffer).await?;
    Ok(serde_json::from_slice(buffer)?)
}
