//! Plain HTTP routes of the agent, for callers that know what they say.

use std::time::Duration;

use bytes::BytesMut;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Envd, REPORT_BYTES_MAX};
use crate::error::{EnvdError, HttpError};
use crate::transport::{Answer, BodySender, Dropped, NotWanted, channel, within};

/// The most of a streamed content that is read at once.
const PIECE_BYTES: usize = 64 << 10;

impl Envd {
    /// Asks a route that answers 200 and JSON, of at most 64 KiB and within `limit`. Any other
    /// status is a refusal. The path and query begin with a slash and are already encoded.
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        limit: Duration,
    ) -> Result<T, EnvdError> {
        let request = self.get(path_and_query)?;
        let answer = self
            .transport
            .call(request, REPORT_BYTES_MAX, limit)
            .await?;
        if answer.status != StatusCode::OK {
            return Err(EnvdError::refused(&answer));
        }
        serde_json::from_slice(&answer.body).map_err(|source| EnvdError::UnreadableAnswer {
            target: path_and_query.to_owned(),
            source,
        })
    }

    /// Sends all that `content` has, however long it is, and answers what the route says to it, be it
    /// a refusal ([`EnvdError::refused`] reads one) or not: at most 64 KiB, and all within `limit`.
    /// The path and query begin with a slash and are already encoded.
    ///
    /// An answer that comes before everything was sent ends the sending. Content that cannot be read
    /// to its end is [`HttpError::Content`], and its receiver gets a request that is cut off, never
    /// a shorter one; so does it at the limit, and when the call is given up.
    pub async fn post_stream(
        &self,
        path_and_query: &str,
        content: impl AsyncRead,
        limit: Duration,
    ) -> Result<Answer, EnvdError> {
        let (sender, body) = channel(Dropped::CutsOff);
        let builder = self
            .request(Method::POST, path_and_query)?
            .header(CONTENT_TYPE, "application/octet-stream");
        let request = self.finish(builder, path_and_query, body)?;
        let exchange = async {
            let sent = self.transport.send(request);
            let fed = feed(content, sender);
            tokio::pin!(sent, fed);
            let response = tokio::select! {
                // An answer counts more than what happens to the content behind it.
                biased;
                response = &mut sent => response?,
                read = &mut fed => {
                    read.map_err(|source| HttpError::Content {
                        target: path_and_query.to_owned(),
                        source,
                    })?;
                    sent.await?
                }
            };
            Answer::read(response, path_and_query, REPORT_BYTES_MAX).await
        };
        Ok(within(limit, path_and_query, exchange).await?)
    }
}

/// Hands the content on until its end, or until nobody wants it; why, the call itself will say.
async fn feed(content: impl AsyncRead, sender: BodySender) -> std::io::Result<()> {
    tokio::pin!(content);
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE_BYTES);
        let is_over = content.read_buf(&mut buffer).await? == 0;
        if is_over {
            let (Ok(()) | Err(NotWanted)) = sender.end().await;
            return Ok(());
        }
        if let Err(NotWanted) = sender.send(buffer.split().freeze()).await {
            return Ok(());
        }
    }
}
