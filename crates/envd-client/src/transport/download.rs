//! An answer that is read piece by piece.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Answer, Transport, whole, within};
use crate::error::HttpError;

/// A content on its way here, however long it is.
#[derive(Debug)]
pub struct Download {
    pub headers: HeaderMap,
    target: String,
    body: Incoming,
}

impl Transport {
    /// Asks for a content, which is to begin within `limit`. The inner error is an answer of another
    /// status than 200, of which at most `bytes_max` are read.
    pub async fn download(
        &self,
        request: Request<Bytes>,
        bytes_max: usize,
        limit: Duration,
    ) -> Result<Result<Download, Answer>, HttpError> {
        let target = request.uri().to_string();
        let exchange = async {
            let response = self.send(request.map(whole)).await?;
            if response.status() != StatusCode::OK {
                return Ok(Err(Answer::read(response, &target, bytes_max).await?));
            }
            let (head, body) = response.into_parts();
            Ok(Ok(Download {
                headers: head.headers,
                target: target.clone(),
                body,
            }))
        };
        within(limit, &target, exchange).await
    }
}

impl Download {
    /// The next piece; `None` at the end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|source| HttpError::Read {
                target: self.target.clone(),
                source: source.into(),
            })?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}
