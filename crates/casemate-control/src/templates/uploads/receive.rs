//! Taking an archive in: bounded, hashed on its way to the disk, and there as a whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use casemate_store::{CacheKey, StoreError, Upload};
use casemate_types::{TeamId, chain, steady};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;

use super::Ticket;
use super::carried::from_the_start;
use super::under_way::Place;
use crate::Control;
use crate::auth::{WhenBlocked, standing};

/// Bytes that are gathered before they go to the disk: what an upload takes of our memory.
const CHUNK_BYTES: usize = 256 * 1024;
/// Beginning of the names of files that are not whole yet.
pub(super) const TEMPORARY: &str = "tmp-";

/// Why an archive was not taken. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("this upload link is not valid: ask for a new one")]
    Link,
    #[error("this upload link has expired: ask for a new one")]
    Expired,
    #[error("the archive has more than {0} bytes, which is the most that one may have")]
    TooLarge(u64),
    #[error(
        "the team's uploads together have more than {0} bytes, which is the most that they may have"
    )]
    TeamFull(u64),
    #[error("the archive ended early: {had} of {wanted} bytes came")]
    CutOff { had: u64, wanted: u64 },
    #[error("the disk of this platform is full")]
    DiskFull,
    /// Other servers could not build with it.
    #[error("the archive could not be stored: try again")]
    Bucket,
    #[error("could not write an upload")]
    Write(#[source] io::Error),
    #[error("the store failed with an upload")]
    Store(#[source] StoreError),
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded => Self::DiskFull,
            _ => Self::Write(error),
        }
    }
}

impl From<StoreError> for UploadError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DiskFull(_) => Self::DiskFull,
            error => Self::Store(error),
        }
    }
}

/// An archive of which a part is there. Dropped before [`Receiving::finish`], it leaves nothing.
pub struct Receiving {
    control: Arc<Control>,
    ticket: Ticket,
    /// As announced.
    length: Option<u64>,
    place: Place,
    /// Bytes of uploads that the team had when this one began.
    stored: u64,
    /// `None` once a write failed or was given up.
    writer: Option<Writer>,
    chunk: Vec<u8>,
    bytes: u64,
    file: Temporary,
    _turn: OwnedSemaphorePermit,
}

pub(in crate::templates) struct Writer {
    /// Locked as long as somebody writes it: one that nobody has locked is left of a crash.
    file: File,
    hash: Sha256,
}

impl Control {
    /// Begins an upload under the link with this token. `length` is what the client announced.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing.
    pub async fn receive_upload(
        self: &Arc<Self>,
        token: &str,
        length: Option<u64>,
    ) -> Result<Receiving, UploadError> {
        let ticket = Ticket::read(&self.keys, token).ok_or(UploadError::Link)?;
        if ticket.is_over(steady::now()) {
            return Err(UploadError::Expired);
        }
        check_size(&ticket, length.unwrap_or(0))?;
        let team = self.store.team_by_id(&ticket.team).await?;
        if team.is_none_or(|team| standing(&team, WhenBlocked::Refused).is_err()) {
            return Err(UploadError::Link);
        }
        let (mut place, turns) = self.uploads.place(&ticket.team);
        let turn = turns.acquire_owned().await;
        let turn = turn.map_err(|_| io::Error::other("uploads are closed"))?;
        // Counted before the others are asked for: two that begin at once see each other.
        let under_way = place.grow_to(length.unwrap_or(0));
        let stored = self.store.upload_bytes(&ticket.team).await?;
        self.check_sum(stored, under_way)?;
        let dir = self.config.uploads.dir.join(ticket.team.as_str());
        let (file, writer) = blocking(move || Temporary::create(&dir)).await?;
        Ok(Receiving {
            control: Arc::clone(self),
            ticket,
            length,
            place,
            stored,
            writer: Some(writer),
            chunk: Vec::new(),
            bytes: 0,
            file,
            _turn: turn,
        })
    }

    fn check_sum(&self, stored: u64, under_way: u64) -> Result<(), UploadError> {
        let max = self.config.uploads.team_bytes_max;
        match stored.saturating_add(under_way) > max {
            true => Err(UploadError::TeamFull(max)),
            false => Ok(()),
        }
    }

    /// What ended since this one began is neither in what was stored then nor under way: many that
    /// begin together, and end one after the other, would each find room. [`Uploads::settling`] is
    /// held.
    async fn check_stored(
        &self,
        team: &TeamId,
        sha256: &str,
        bytes: u64,
    ) -> Result<(), UploadError> {
        let there = self.store.upload_wanted(team, &[sha256.to_owned()]).await?;
        match there.is_empty() {
            true => self.check_sum(self.store.upload_bytes(team).await?, bytes),
            false => Ok(()),
        }
    }

    /// Removes a file that no row wants. [`Uploads::settling`] is held.
    pub(super) async fn remove_unwanted(
        &self,
        team: &TeamId,
        sha256: &str,
    ) -> Result<(), UploadError> {
        let wanted = self.store.upload_wanted(team, &[sha256.to_owned()]).await?;
        if wanted.is_empty() {
            let path = self.config.uploads.dir.join(team.as_str()).join(sha256);
            blocking(move || remove(&path)).await?;
        }
        Ok(())
    }
}

impl Receiving {
    /// How long nothing may come before the upload is given up.
    pub fn silence_max(&self) -> std::time::Duration {
        self.control.config.uploads.silence_max
    }

    /// Takes what came next.
    ///
    /// # Cancel safety
    /// None: dropped in between, the upload can only be dropped too.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), UploadError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(length);
        check_size(&self.ticket, self.bytes)?;
        if self.bytes > self.place.bytes() {
            // More than was announced.
            let under_way = self.place.grow_to(self.bytes);
            self.control.check_sum(self.stored, under_way)?;
        }
        while !bytes.is_empty() {
            let room = CHUNK_BYTES.saturating_sub(self.chunk.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), UploadError> {
        let given_up = || io::Error::other("an upload went on after it was given up");
        let mut writer = self.writer.take().ok_or_else(given_up)?;
        let mut chunk = std::mem::take(&mut self.chunk);
        let reserve = self.control.config.uploads.disk_reserve_bytes;
        let (writer, chunk) = blocking(move || {
            writer.write(&chunk, reserve)?;
            chunk.clear();
            Ok((writer, chunk))
        })
        .await?;
        (self.writer, self.chunk) = (Some(writer), chunk);
        Ok(())
    }

    /// Makes the archive the team's, in the place of one that had its name.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn finish(mut self) -> Result<(), UploadError> {
        if let Some(wanted) = self.length.filter(|length| *length != self.bytes) {
            let had = self.bytes;
            return Err(UploadError::CutOff { had, wanted });
        }
        self.flush().await?;
        let Ticket { team, key, .. } = &self.ticket;
        let writer = self.writer.take();
        let (writer, sha256) = blocking(move || {
            let writer = writer.ok_or_else(|| io::Error::other("nothing writes the upload"))?;
            writer.file.sync_all()?;
            let sha256 = hex::encode(writer.hash.finalize());
            Ok((writer.file, sha256))
        })
        .await?;
        let control = &self.control;
        let writer = Arc::new(writer);
        // Before others are held up. If it is refused after that, nothing names it there, and the
        // bucket's sweep takes it.
        let content = from_the_start(Arc::clone(&writer)).await?;
        let stored = control.store_upload(team, &sha256, content).await;
        let artifact = stored.map_err(|error| {
            tracing::warn!(
                team.id = %team, error = chain(&error),
                "could not store an upload for other servers"
            );
            UploadError::Bucket
        })?;
        let _settling = control.uploads.settling.lock().await;
        control.check_stored(team, &sha256, self.bytes).await?;
        let named = self.file.dir.join(&sha256);
        let from = self.file.take();
        blocking(move || {
            let renamed = fs::rename(&from, &named);
            if renamed.is_err() {
                remove(&from)?;
            }
            renamed?;
            sync_dir(&named)
        })
        .await?;
        drop(writer);
        let upload = Upload {
            sha256,
            bytes: self.bytes,
            artifact,
        };
        let settled = control.settle(team, key, upload).await;
        if settled.is_ok() {
            tracing::info!(team.id = %team, bytes = self.bytes, "took an upload");
        }
        settled
    }
}

impl Control {
    /// Writes the row of a file that is there, and removes what it makes superfluous.
    async fn settle(
        &self,
        team: &TeamId,
        key: &CacheKey,
        upload: Upload,
    ) -> Result<(), UploadError> {
        let now = steady::now();
        let max = self.config.uploads.team_bytes_max;
        let put = async {
            let before = self.store.upload_find(team, key, now).await?;
            // Other servers take uploads of the team as well.
            let put = self.store.upload_put_within(team, key, &upload, now, max);
            Ok::<_, StoreError>((before, put.await?))
        };
        let (left, put) = match put.await {
            Ok((before, true)) => (before, Ok(())),
            Ok((_, false)) => (Some(upload.clone()), Err(UploadError::TeamFull(max))),
            Err(error) => (Some(upload.clone()), Err(UploadError::from(error))),
        };
        if let Some(left) = left
            && let Err(error) = self.remove_unwanted(team, &left.sha256).await
        {
            tracing::warn!(
                team.id = %team, error = chain(&error),
                "could not remove an upload that nobody wants yet"
            );
        }
        put
    }
}

fn check_size(ticket: &Ticket, bytes: u64) -> Result<(), UploadError> {
    match bytes > ticket.bytes_max {
        true => Err(UploadError::TooLarge(ticket.bytes_max)),
        false => Ok(()),
    }
}

impl Writer {
    /// Fails where the disk would have less than the reserve left.
    pub(in crate::templates) fn write(&mut self, chunk: &[u8], reserve: u64) -> io::Result<()> {
        let disk = rustix::fs::fstatvfs(&self.file)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if free < reserve.saturating_add(needed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.hash.update(chunk);
        self.file.write_all(chunk)
    }

    /// SHA-256 of all that was written.
    pub(in crate::templates) fn hash(self) -> [u8; 32] {
        self.hash.finalize().into()
    }

    /// The file, which can be read as well, and the hash of all that was written.
    pub(in crate::templates) fn into_parts(self) -> (File, Sha256) {
        (self.file, self.hash)
    }
}

/// The path of a file that is not whole yet; it is removed unless it was taken.
pub(in crate::templates) struct Temporary {
    dir: PathBuf,
    path: Option<PathBuf>,
}

impl Temporary {
    pub(in crate::templates) fn create(dir: &Path) -> io::Result<(Self, Writer)> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        loop {
            let path = dir.join(format!("{TEMPORARY}{}", uuid::Uuid::new_v4()));
            let open = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            let temporary = Self {
                dir: dir.into(),
                path: Some(path),
            };
            let file = open?;
            // Whoever sweeps the folder just then takes a new one for one that was left.
            match file.try_lock() {
                Ok(()) if file.metadata()?.nlink() > 0 => {
                    let hash = Sha256::new();
                    return Ok((temporary, Writer { file, hash }));
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn take(&mut self) -> PathBuf {
        self.path.take().unwrap_or_default()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.path.take()
            && let Err(error) = remove(&path)
        {
            tracing::warn!(%error, "could not remove a part of an upload yet");
        }
    }
}

/// One that is not there is as good as removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// So that a name outlives a loss of power.
fn sync_dir(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

pub(in crate::templates) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}
