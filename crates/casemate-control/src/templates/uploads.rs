//! Archives that clients upload for the `COPY` steps of their builds.
//!
//! ```text
//! link ─▶ (no key, by the link alone) receive ─▶ DIR/<team>/<sha256> ─▶ row: the client's hash → sha256
//! ```
//!
//! The client's hash is its own name for an archive and says nothing about the content
//! (`templates.md` 3.4); files are named by their content, so that no two writers meet in one. A
//! file without a row is nobody's and goes with the next [`Control::sweep_uploads`]. With a bucket it is
//! there as well before its row is, and other servers bring it from there when they build with it.

mod carried;
mod receive;
mod sweep;
mod under_way;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use casemate_store::{CacheKey, StoreError, Upload};
use casemate_types::template::{TemplateRef, TemplateRefError};
use casemate_types::{TeamId, Timestamp, chain, steady};
use tokio::fs::File;

use super::owned::{Asker, Owned};
use super::written;
use crate::Control;
use crate::auth::WhenBlocked;
use crate::keys::Keys;

pub use receive::{Receiving, UploadError};
pub(super) use receive::{Temporary, Writer, blocking};
pub(crate) use under_way::Uploads;

/// How long a link may be used. An upload that began in time may end later.
const LINK_LIFE: Duration = Duration::from_secs(30 * 60);
/// A token is some 210 bytes; a longer one is not ours.
const TOKEN_BYTES_MAX: usize = 512;
const TAG_BYTES: usize = 32;

/// Where an archive is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadLink {
    /// It is there already, and need not be sent.
    pub present: bool,
    /// The last part of the link's path. Whoever knows it may upload.
    pub token: String,
}

/// Why there is no link. The texts are E2B's.
#[derive(Debug, thiserror::Error)]
pub enum UploadLinkError {
    #[error("Invalid files hash")]
    Hash,
    #[error("Error when getting template: {0}")]
    Reference(#[from] TemplateRefError),
    /// Or another team's.
    #[error("Error when getting template: template '{0}' not found")]
    NotFound(String),
    #[error("Error when requesting layer files upload")]
    Store(#[from] StoreError),
}

/// An archive that is read while it is built into a template.
#[derive(Debug)]
pub struct OpenUpload {
    pub file: File,
    pub bytes: u64,
    /// What the content must have, 64 hexadecimal characters: to be checked by whoever reads it.
    pub sha256: String,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenUploadError {
    #[error("look for an upload")]
    Store(#[from] StoreError),
    #[error("open the upload {path}", path = path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ticket {
    team: TeamId,
    key: CacheKey,
    /// In steady time, seconds.
    ends_at: i64,
    bytes_max: u64,
}

impl Control {
    /// A link under which the asker's team may upload the archive that it calls `hash`.
    pub async fn upload_link(
        &self,
        asker: &Asker,
        template: &str,
        hash: &str,
    ) -> Result<UploadLink, UploadLinkError> {
        let key = CacheKey::parse(hash).ok_or(UploadLinkError::Hash)?;
        let reference = TemplateRef::parse(template)?;
        let team = match self.owned(asker, &reference, WhenBlocked::Refused).await? {
            Owned::Yes(caller, _) => caller.team.id.clone(),
            Owned::NotYours | Owned::Unknown => {
                return Err(UploadLinkError::NotFound(written(&reference)));
            }
        };
        let present = match self.open_upload(&team, &key).await {
            Ok(found) => found.is_some(),
            Err(OpenUploadError::Store(error)) => return Err(error.into()),
            // Sent once more, it is there.
            Err(OpenUploadError::File { .. }) => false,
        };
        let ticket = Ticket {
            team,
            key,
            ends_at: (steady::now() + LINK_LIFE).as_second(),
            bytes_max: self.config.uploads.upload_bytes_max,
        };
        Ok(UploadLink {
            present,
            token: ticket.token(&self.keys),
        })
    }

    /// The archive that the team calls `key`; `None` when it was not uploaded, or is over.
    pub async fn open_upload(
        &self,
        team: &TeamId,
        key: &CacheKey,
    ) -> Result<Option<OpenUpload>, OpenUploadError> {
        let mut tried = None;
        loop {
            let found = self.store.upload_find(team, key, steady::now()).await?;
            let Some(upload) = found else {
                return Ok(None);
            };
            let Upload {
                sha256,
                bytes,
                artifact,
            } = upload;
            // Its file is gone, and no other came in its place meanwhile.
            if tried.as_ref() == Some(&sha256) {
                return Ok(None);
            }
            let path = self.config.uploads.dir.join(team.as_str()).join(&sha256);
            match File::open(&path).await {
                Ok(file) => {
                    return Ok(Some(OpenUpload {
                        file,
                        bytes,
                        sha256,
                    }));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if let (Some(bucket), Some(artifact)) = (self.bucket(), artifact) {
                        let brought = self.bring_upload(bucket, team, &sha256, &artifact);
                        match brought.await {
                            // It is looked for once more.
                            Ok(()) if tried.is_none() => {
                                tried = Some(String::new());
                                continue;
                            }
                            Ok(()) => {}
                            Err(error) => tracing::warn!(
                                team.id = %team, error = chain(&error),
                                "could not bring an upload from the bucket"
                            ),
                        }
                    }
                    tried = Some(sha256);
                }
                Err(source) => return Err(OpenUploadError::File { path, source }),
            }
        }
    }
}

impl Ticket {
    fn token(&self, keys: &Keys) -> String {
        let Self {
            team,
            key,
            ends_at,
            bytes_max,
        } = self;
        let text = format!("u1 {team} {} {ends_at} {bytes_max}", key.as_str());
        let mut bytes = keys.upload_tag(text.as_bytes()).to_vec();
        bytes.extend_from_slice(text.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None`: it was not issued here, or was changed.
    fn read(keys: &Keys, token: &str) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (tag, text) = bytes.split_at_checked(TAG_BYTES)?;
        if !keys.upload_fits(text, tag) {
            return None;
        }
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let (version, team, key) = (words.next()?, words.next()?, words.next()?);
        let (ends_at, bytes_max) = (words.next()?, words.next()?);
        if version != "u1" || words.next().is_some() {
            return None;
        }
        Some(Self {
            team: TeamId::parse(team).ok()?,
            key: CacheKey::parse(key)?,
            ends_at: ends_at.parse().ok()?,
            bytes_max: bytes_max.parse().ok()?,
        })
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now.as_second() >= self.ends_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::RootSecret;

    #[test]
    fn a_token_says_what_it_was_issued_with_and_nothing_else() {
        let keys = |byte| Keys::derive(&RootSecret::new(vec![byte; 32]).unwrap());
        let ticket = Ticket {
            team: TeamId::parse("0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162").unwrap(),
            key: CacheKey::parse(&"0a".repeat(32)).unwrap(),
            ends_at: 1_800_000_000,
            bytes_max: 4 << 30,
        };
        let token = ticket.token(&keys(1));
        assert!(token.len() < TOKEN_BYTES_MAX);
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        assert!(token.bytes().all(is_plain), "{token}");
        assert_eq!(Ticket::read(&keys(1), &token), Some(ticket.clone()));
        assert_eq!(Ticket::read(&keys(2), &token), None);
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(Ticket::read(&keys(1), &changed), None, "{at}");
        }
        for wrong in [
            "",
            "x",
            "====",
            &"A".repeat(4096),
            &token[..token.len() - 4],
        ] {
            assert_eq!(Ticket::read(&keys(1), wrong), None, "{wrong}");
        }
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(!ticket.is_over(at(1_799_999_999)) && ticket.is_over(at(1_800_000_000)));
    }
}
