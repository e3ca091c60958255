//! An answer, read piece by piece.

use std::time::Duration;

use bytes::Bytes;
use http::header::AsHeaderName;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{Authority, FetchError};

/// Its connection closes with it.
pub(crate) struct Reply {
    at: Authority,
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    stall: Duration,
    _connection: AbortOnDropHandle<()>,
}

impl Reply {
    pub(super) fn new(
        at: Authority,
        answer: Response<Incoming>,
        connection: AbortOnDropHandle<()>,
        stall: Duration,
    ) -> Self {
        let (head, body) = answer.into_parts();
        Self {
            at,
            status: head.status,
            headers: head.headers,
            body,
            stall,
            _connection: connection,
        }
    }

    /// Who answered, after redirects.
    pub(crate) fn at(&self) -> &Authority {
        &self.at
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// `None` also where the header is not text.
    pub(crate) fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn headers<'a>(
        &'a self,
        name: impl AsHeaderName + 'a,
    ) -> impl Iterator<Item = &'a str> {
        let all = self.headers.get_all(name).into_iter();
        all.filter_map(|value| value.to_str().ok())
    }

    /// The next piece of the body; `None` after the last.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let frame = timeout(self.stall, self.body.frame())
                .await
                .map_err(|_| FetchError::Stalled(self.stall))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(FetchError::cut(error)),
                Some(Ok(frame)) => {
                    // Trailers are no content.
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, of `max` bytes at most.
    pub(crate) async fn read(mut self, max: usize) -> Result<Vec<u8>, FetchError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > max {
                return Err(FetchError::TooLong(u64::try_from(max).unwrap_or(u64::MAX)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}
