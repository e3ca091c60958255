//! A file as the body of a request.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use super::{Answer, BodySender, Dropped, Transport, channel, within};
use crate::error::HttpError;

/// Bytes of one piece.
const PIECE_BYTES: usize = 256 << 10;

/// Told how many bytes were handed to the network so far.
pub type UploadProgress = Box<dyn FnMut(u64) + Send>;

impl Transport {
    /// Sends a file as a request's body, and reads the whole answer, at most `bytes_max` of it,
    /// within `limit`. The request must say the file's length; a file that is shorter cuts it off. An
    /// answer that comes before the file was read ends the sending.
    ///
    /// # Errors
    /// [`HttpError::Content`]: the file cannot be read.
    pub async fn upload(
        &self,
        request: Request<()>,
        file: File,
        progress: UploadProgress,
        bytes_max: usize,
        limit: Duration,
    ) -> Result<Answer, HttpError> {
        // The rest of the address may be a secret.
        let host = request.uri().host().unwrap_or_default();
        let target = format!("the upload to {host}");
        let (sender, body) = channel(Dropped::CutsOff);
        let exchange = async {
            let send = async {
                let sent = self.send(request.map(|()| body)).await;
                let response = sent.map_err(|error| match error {
                    HttpError::Send { source, .. } => HttpError::Send {
                        target: target.clone(),
                        source,
                    },
                    other => other,
                })?;
                Answer::read(response, &target, bytes_max).await
            };
            tokio::pin!(send);
            let write = write(sender, file, progress);
            tokio::pin!(write);
            tokio::select! {
                answer = &mut send => answer,
                written = &mut write => match written {
                    Ok(()) => send.await,
                    Err(source) => Err(HttpError::Content { target: target.clone(), source }),
                },
            }
        };
        within(limit, &target, exchange).await
    }
}

async fn write(
    sender: BodySender,
    mut file: File,
    mut progress: UploadProgress,
) -> std::io::Result<()> {
    let mut sent = 0;
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE_BYTES];
            let count = file.read(&mut piece)?;
            piece.truncate(count);
            std::io::Result::Ok((file, piece))
        });
        let (back, piece) = read.await.map_err(std::io::Error::other)??;
        file = back;
        if piece.is_empty() {
            // Who does not want it has answered why.
            let _ = sender.end().await;
            return Ok(());
        }
        sent += piece.len() as u64;
        if sender.send(Bytes::from(piece)).await.is_err() {
            return Ok(());
        }
        progress(sent);
    }
}
