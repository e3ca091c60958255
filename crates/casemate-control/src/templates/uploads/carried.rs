//! Archives that another server took: by way of the bucket.

use std::fs;
use std::io;
use std::sync::Arc;

use casemate_artifacts::{ArtifactError, ArtifactRef, Artifacts, Kind, PutRequest, Scope};
use casemate_types::TeamId;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::receive::{Temporary, Writer, blocking};
use crate::Control;

/// Bytes that are gathered before they go to the disk.
const CHUNK_BYTES: usize = 256 * 1024;

/// Why an archive is not here.
#[derive(Debug, thiserror::Error)]
pub(super) enum CarriedError {
    #[error(transparent)]
    Bucket(#[from] ArtifactError),
    #[error("{0:?} names no artifact")]
    Reference(String),
    #[error("what the bucket has is not what was uploaded")]
    Changed,
    #[error("write it to the disk")]
    Disk(#[from] io::Error),
}

impl Control {
    /// Stores an archive for the other servers; `None`: there is no bucket, and so no other server
    /// that could build with it.
    pub(super) async fn store_upload(
        &self,
        team: &TeamId,
        sha256: &str,
        source: impl AsyncRead + Unpin + Send,
    ) -> Result<Option<String>, CarriedError> {
        let Some(bucket) = self.bucket() else {
            return Ok(None);
        };
        let scope = scope_of(team)?;
        let put = PutRequest {
            scope: &scope,
            kind: Kind::Upload,
            name: sha256,
            bytes_max: self.config.uploads.upload_bytes_max,
            like: None,
        };
        let put = bucket.put(put, source).await?;
        Ok(Some(put.artifact.to_string()))
    }

    /// Brings an archive here, under the name of its content.
    pub(super) async fn bring_upload(
        &self,
        bucket: &Artifacts,
        team: &TeamId,
        sha256: &str,
        artifact: &str,
    ) -> Result<(), CarriedError> {
        let wrong = |_| CarriedError::Reference(artifact.to_owned());
        let reference: ArtifactRef = artifact.parse().map_err(wrong)?;
        let opened = bucket.open_artifact(&scope_of(team)?, &reference).await?;
        let dir = self.config.uploads.dir.join(team.as_str());
        let (mut file, writer) = blocking(move || Temporary::create(&dir)).await?;
        let reserve = self.config.uploads.disk_reserve_bytes;
        let found = copied(opened.reader(), writer, reserve).await?;
        if found != sha256 {
            return Err(CarriedError::Changed);
        }
        let (named, from) = (file.dir().join(sha256), file.take());
        // Of two that bring it the later one changes nothing.
        blocking(move || fs::rename(&from, &named)).await?;
        Ok(())
    }
}

fn scope_of(team: &TeamId) -> Result<Scope, CarriedError> {
    let wrong = |_| CarriedError::Reference(team.to_string());
    team.as_str().parse().map_err(wrong)
}

/// The SHA-256 of all of it, hexadecimal.
async fn copied(
    mut from: impl AsyncRead + Unpin,
    mut writer: Writer,
    reserve: u64,
) -> Result<String, CarriedError> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    loop {
        chunk.clear();
        let mut part = (&mut from).take(CHUNK_BYTES as u64);
        let read = part.read_to_end(&mut chunk).await;
        let read = read.map_err(|error| match ArtifactError::from_io(error) {
            Ok(error) => CarriedError::Bucket(error),
            Err(error) => CarriedError::Disk(error),
        })?;
        if read == 0 {
            break;
        }
        (writer, chunk) = blocking(move || {
            writer.write(&chunk, reserve)?;
            Ok((writer, chunk))
        })
        .await?;
    }
    Ok(hex::encode(writer.hash()))
}

/// A file that is read from its beginning, whoever wrote it before.
pub(super) async fn from_the_start(file: Arc<fs::File>) -> io::Result<tokio::fs::File> {
    use std::io::Seek;
    let file = blocking(move || {
        let mut file = file.try_clone()?;
        file.rewind()?;
        Ok(file)
    })
    .await?;
    Ok(tokio::fs::File::from_std(file))
}
