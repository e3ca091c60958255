//! Uploaded archives as builds read them: checked against the name of their content. And what of a build's
//! cache comes to its node.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use casemate_build::builder::{UploadError, Uploads};
use casemate_store::CacheKey;
use casemate_types::{SnapshotId, TeamId, chain};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, ReadBuf};

use crate::Control;
use crate::nodes::Node;
use crate::templates::uploads::OpenUpload;

/// What a build needs of us at its node.
pub(super) struct AtNode {
    pub(super) control: Arc<Control>,
    pub(super) node: Arc<Node>,
}

#[async_trait]
impl Uploads for AtNode {
    async fn open(
        &self,
        team: &TeamId,
        key: &CacheKey,
    ) -> Result<Box<dyn AsyncRead + Send + Unpin>, UploadError> {
        let upload = opened(&self.control, team, key).await?;
        Ok(Box::new(Checked {
            inner: upload.file,
            hash: Sha256::new(),
            expected: upload.sha256,
        }))
    }

    async fn file(&self, team: &TeamId, key: &CacheKey) -> Result<std::fs::File, UploadError> {
        let upload = opened(&self.control, team, key).await?;
        Ok(upload.file.into_std().await)
    }

    async fn bring(&self, layers: &[String], files: Option<&SnapshotId>, hold: &str) {
        let brought = self.control.bring_named(&self.node, layers, files, hold);
        if let Err(error) = brought.await {
            tracing::debug!(
                node = self.node.name,
                error = chain(&error),
                "what a build found in its cache does not come to its node"
            );
        }
    }
}

async fn opened(
    control: &Control,
    team: &TeamId,
    key: &CacheKey,
) -> Result<OpenUpload, UploadError> {
    let opened = control.open_upload(team, key).await;
    let opened = opened.map_err(|error| UploadError::Broken(chain(&error)))?;
    opened.ok_or(UploadError::Missing)
}

/// Ends with an error where the content is not what it was when it came.
struct Checked<R> {
    inner: R,
    hash: Sha256,
    /// Hexadecimal.
    expected: String,
}

impl<R: AsyncRead + Unpin> AsyncRead for Checked<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, into))?;
        let read = &into.filled()[before..];
        if !read.is_empty() {
            self.hash.update(read);
        } else if into.remaining() > 0 && hex::encode(self.hash.clone().finalize()) != self.expected
        {
            let why = "an uploaded archive is not what was uploaded";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_changed_archive_is_an_error_at_its_end() {
        let expected = hex::encode(Sha256::digest(b"content"));
        for (content, is_right) in [(&b"content"[..], true), (b"c0ntent", false), (b"", false)] {
            let mut reader = Checked {
                inner: content,
                hash: Sha256::new(),
                expected: expected.clone(),
            };
            let read = reader.read_to_end(&mut Vec::new()).await;
            assert_eq!(read.is_ok(), is_right, "{content:?}");
        }
    }
}
