//! Connections into sandboxes of another machine.
//!
//! Each takes a connection between the two machines of its own, so that one of many bytes holds up
//! nobody else's. It begins with what is wanted and the node's answer, in the form of
//! [frames](crate::frame); after a good answer everything belongs to the sandbox. After any other it
//! may be asked again.

use std::io;
use std::time::Duration;

use casemate_types::SandboxId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::NodeError;
use crate::wire::Wire;

/// Neither a question nor an answer is longer.
const MESSAGE_MAX: u32 = 4096;
/// How long an end waits for what the other has to say at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection that nobody asked anything yet is served.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) sandbox: SandboxId,
    pub(crate) port: u16,
}

/// Asks on a connection that was made for it; `Err` of the outer: it broke before there was an
/// answer, and is of no use any more.
pub(crate) async fn ask(
    stream: &mut Box<dyn Wire>,
    wanted: &Wanted,
) -> io::Result<Result<(), NodeError>> {
    send(stream, wanted).await?;
    timeout(PATIENCE, recv(stream)).await?
}

/// What the next one wants; `None`: nothing any more, or nothing for [`IDLE_MAX`].
pub(crate) async fn asked(stream: &mut Box<dyn Wire>) -> io::Result<Option<Wanted>> {
    match timeout(IDLE_MAX, recv(stream)).await {
        Ok(Ok(wanted)) => Ok(Some(wanted)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

pub(crate) async fn answer(
    stream: &mut Box<dyn Wire>,
    answer: &Result<(), NodeError>,
) -> io::Result<()> {
    send(stream, answer).await
}

async fn send<T: Serialize>(stream: &mut Box<dyn Wire>, message: &T) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    if length > MESSAGE_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(text);
    timeout(PATIENCE, async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    })
    .await?
}

/// Reads no byte more than the message: those after it are the sandbox's.
async fn recv<T: DeserializeOwned>(stream: &mut Box<dyn Wire>) -> io::Result<T> {
    let length = stream.read_u32().await?;
    if length > MESSAGE_MAX {
        let text = format!("a message of {length} bytes; {MESSAGE_MAX} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    stream.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}
