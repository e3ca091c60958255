//! Contents of files, over plain HTTP.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Envd, REPORT_BYTES_MAX};
use crate::error::EnvdError;
pub use crate::transport::Download;
use crate::transport::{ANSWER_TIMEOUT, BEGIN_TIMEOUT};

/// What stays as it is in a query: what RFC 3986 calls unreserved, and the slash.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

impl Envd {
    /// A file's content. More than `bytes_max` is an error, not a shortened file.
    pub async fn file_read(&self, path: &str, bytes_max: usize) -> Result<Bytes, EnvdError> {
        let target = self.file_target(path);
        let answer = self
            .transport
            .call(self.get(&target)?, bytes_max, ANSWER_TIMEOUT)
            .await?;
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            _ => Err(EnvdError::refused(&answer)),
        }
    }

    /// A file's content, piece by piece, however long it is.
    pub async fn file_open(&self, path: &str) -> Result<Download, EnvdError> {
        self.download(self.file_target(path)).await
    }

    /// All files of the sandbox as one layer of an image: a plain tar, piece by piece. A part is never
    /// taken for the whole: what cannot be read breaks it off.
    pub async fn root_open(&self) -> Result<Download, EnvdError> {
        self.download("/build/root".to_owned()).await
    }

    async fn download(&self, target: String) -> Result<Download, EnvdError> {
        let request = self.get(&target)?;
        let begun = self
            .transport
            .download(request, REPORT_BYTES_MAX, BEGIN_TIMEOUT);
        begun.await?.map_err(|answer| EnvdError::refused(&answer))
    }

    /// Writes a whole file, making the folders above it.
    pub async fn file_write(&self, path: &str, content: impl Into<Bytes>) -> Result<(), EnvdError> {
        let target = self.file_target(path);
        let builder = self
            .request(Method::POST, &target)?
            .header(CONTENT_TYPE, "application/octet-stream");
        let request = self.finish(builder, &target, content.into())?;
        let answer = self
            .transport
            .call(request, REPORT_BYTES_MAX, ANSWER_TIMEOUT)
            .await?;
        match answer.status {
            StatusCode::OK => Ok(()),
            _ => Err(EnvdError::refused(&answer)),
        }
    }

    fn file_target(&self, path: &str) -> String {
        let path = utf8_percent_encode(path, QUERY);
        match &self.user {
            None => format!("/files?path={path}"),
            Some(user) => {
                let user = utf8_percent_encode(user, QUERY);
                format!("/files?path={path}&username={user}")
            }
        }
    }
}
