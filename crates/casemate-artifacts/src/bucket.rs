//! Objects of a bucket: read, written, found, listed, deleted, each with its tries and bounds.
//!
//! Owns what is spoken with clouds, through `object_store`, and what their failures mean. Must not
//! know what pieces and manifests are.

mod build;
mod failure;
mod folder;
mod refused;
mod service;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    GetOptions, GetResultPayload, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload,
};
use tokio::time::Instant;

pub use build::BucketError;
pub(crate) use failure::Failure;
pub use service::TlsError;

use crate::clock::Clock;
use crate::config::{BucketConfig, Patience};
use crate::error::{ArtifactError, Cause, Operation, What};
use crate::place::Place;

/// What `service` and here refuse to hold of one answer.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// Objects longer than this go in parts.
const WHOLE_BYTES_MAX: usize = 8 << 20;
const PART_BYTES: usize = 8 << 20;
/// How much longer a request may take for each of these.
const PATIENCE_BYTES: u64 = 8 << 20;

/// No object's name: for requests about many, where "not there" can only be said of the bucket.
const NO_OBJECT: &str = "\0";

/// An object as it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Below the prefix.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
}

#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    patience: Patience,
    /// Where the files are, if it is a folder.
    folder: Option<Arc<std::path::Path>>,
}

impl Bucket {
    /// Sets the client up; asks nothing of the bucket yet. A folder is made.
    pub(crate) fn open(config: &BucketConfig, clock: Clock) -> Result<Self, BucketError> {
        let (prefix, folder) = match &config.place {
            Place::S3 { prefix, .. } | Place::Gcs { prefix, .. } | Place::Azure { prefix, .. } => {
                (prefix.as_str(), None)
            }
            Place::Folder(path) => ("", Some(Arc::from(path.as_path()))),
        };
        let store = build::build(config, clock)?;
        Ok(Self {
            store,
            prefix: Path::from(prefix),
            patience: config.patience,
            folder,
        })
    }

    /// A bucket that is gone with the process, for tests of others.
    pub(crate) fn in_memory() -> Self {
        Self {
            store: Arc::new(InMemory::new()),
            prefix: Path::default(),
            patience: Patience::default(),
            folder: None,
        }
    }

    /// The object, if it is there and has at most `bytes_max` bytes; `None` if it is longer.
    pub(crate) async fn read(
        &self,
        name: &str,
        bytes_max: u64,
        what: What,
    ) -> Result<Option<Bytes>, ArtifactError> {
        let path = self.path(name);
        let bytes_max = bytes_max.min(ANSWER_BYTES_MAX);
        let read = || self.read_once(&path, name, bytes_max);
        self.retry(Operation::Read, what, bytes_max, read).await
    }

    async fn read_once(
        &self,
        path: &Path,
        name: &str,
        bytes_max: u64,
    ) -> Result<Option<Bytes>, Failure> {
        let failed = |error: object_store::Error| Failure::of(&error, name);
        let found = self
            .store
            .get_opts(path, GetOptions::default())
            .await
            .map_err(failed)?;
        let announced = found.meta.size;
        if announced > bytes_max {
            return Ok(None);
        }
        if let GetResultPayload::File(file, _) = found.payload {
            return folder::read(file, bytes_max).await;
        }
        let mut stream = found.into_stream();
        let mut bytes = Vec::with_capacity(usize::try_from(announced).unwrap_or_default());
        while let Some(part) = stream.try_next().await.map_err(failed)? {
            if (bytes.len() + part.len()) as u64 > bytes_max {
                return Ok(None);
            }
            bytes.extend_from_slice(&part);
        }
        Ok(Some(bytes.into()))
    }

    /// Writes an object that nobody overwrites: answers `false` if it was there already.
    pub(crate) async fn create(
        &self,
        name: &str,
        bytes: Bytes,
        what: What,
    ) -> Result<bool, ArtifactError> {
        let path = self.path(name);
        let create = || self.create_once(&path, name, bytes.clone());
        self.retry(Operation::Write, what, bytes.len() as u64, create)
            .await
    }

    async fn create_once(&self, path: &Path, name: &str, bytes: Bytes) -> Result<bool, Failure> {
        if bytes.len() > WHOLE_BYTES_MAX {
            return self.create_in_parts(path, name, bytes).await;
        }
        let options = PutOptions::from(PutMode::Create);
        match self
            .store
            .put_opts(path, PutPayload::from(bytes), options)
            .await
        {
            Ok(_) => Ok(true),
            Err(error) => match Failure::of(&error, name) {
                Failure::Exists => self.confirm(path, name).await,
                // To write is missing nothing but the place to write to.
                Failure::Missing => Err(Failure::Later(Cause::Unexpected(
                    "the bucket said that what was to be written is missing".into(),
                ))),
                other => Err(other),
            },
        }
    }

    /// "Already there" is also said while another's upload is under way, which may fail: then it is
    /// worth another try.
    async fn confirm(&self, path: &Path, name: &str) -> Result<bool, Failure> {
        match self.store.head(path).await {
            Ok(_) => Ok(false),
            Err(error) => Err(match Failure::of(&error, name) {
                Failure::Missing => Failure::Later(Cause::Unexpected(
                    "another upload of it is under way".into(),
                )),
                other => other,
            }),
        }
    }

    /// Only manifests are as long, whose names no two writers have.
    async fn create_in_parts(
        &self,
        path: &Path,
        name: &str,
        mut bytes: Bytes,
    ) -> Result<bool, Failure> {
        let failed = |error: object_store::Error| Failure::of(&error, name);
        let options = PutMultipartOptions::default();
        let mut upload = self
            .store
            .put_multipart_opts(path, options)
            .await
            .map_err(failed)?;
        let sent = async {
            while !bytes.is_empty() {
                let part = bytes.split_to(bytes.len().min(PART_BYTES));
                upload.put_part(PutPayload::from(part)).await?;
            }
            upload.complete().await
        };
        match sent.await {
            Ok(_) => Ok(true),
            Err(error) => {
                // What stays of it costs room until the bucket's own rule takes it.
                let _ = upload.abort().await;
                Err(failed(error))
            }
        }
    }

    /// Length of the object, if there is one.
    pub(crate) async fn find(&self, name: &str, what: What) -> Result<Option<u64>, ArtifactError> {
        let path = self.path(name);
        let find = || async {
            match self.store.head(&path).await {
                Ok(meta) => Ok(Some(meta.size)),
                Err(error) => match Failure::of(&error, name) {
                    Failure::Missing => Ok(None),
                    other => Err(other),
                },
            }
        };
        self.retry(Operation::Find, what, 0, find).await
    }

    /// Deletes these objects; those that are gone already count too. All are tried; answers with
    /// the first failure.
    pub(crate) async fn delete(&self, names: &[String], what: What) -> Result<(), ArtifactError> {
        let delete = || async {
            let paths: Vec<_> = names.iter().map(|name| Ok(self.path(name))).collect();
            let mut deleted = self
                .store
                .delete_stream(futures_util::stream::iter(paths).boxed());
            let mut first = Ok(());
            while let Some(one) = deleted.next().await {
                let Err(error) = one else { continue };
                // Which of them it was about, its address says.
                let missing = |name: &String| Failure::of(&error, name) == Failure::Missing;
                if !names.iter().any(missing) {
                    first = first.and(Err(Failure::of(&error, NO_OBJECT)));
                }
            }
            first
        };
        self.retry(Operation::Delete, what, names.len() as u64 * 4096, delete)
            .await
    }

    /// Names of the folders directly below this one.
    pub(crate) async fn folders(&self, below: &str) -> Result<Vec<String>, ArtifactError> {
        let path = self.path(below);
        let list = || async {
            let listed = self.store.list_with_delimiter(Some(&path)).await;
            match listed {
                Ok(listed) => Ok(listed.common_prefixes),
                Err(error) => match Failure::of(&error, below) {
                    Failure::Missing => Ok(Vec::new()),
                    other => Err(other),
                },
            }
        };
        let found = self
            .retry(Operation::List, What::Listing, ANSWER_BYTES_MAX, list)
            .await?;
        let last = |path: Path| path.filename().map(str::to_owned);
        Ok(found.into_iter().filter_map(last).collect())
    }

    /// The objects below this folder. Fetched by pages while they are read.
    pub(crate) fn list(&self, below: &str) -> Listing<'_> {
        let below = self.path(below);
        let stream = self.store.list(Some(&below));
        Listing {
            bucket: self,
            below,
            stream,
            last: None,
            failed: 0,
        }
    }

    /// Of a folder: removes what writers left that were killed longer ago than `age`.
    pub(crate) async fn sweep_partial(&self, below: &str, age: Duration) {
        if let Some(folder) = &self.folder {
            folder::sweep_partial(folder.join(below), age).await;
        }
    }

    fn path(&self, name: &str) -> Path {
        match self.prefix.as_ref().is_empty() {
            true => Path::from(name),
            false => Path::from(format!("{}/{name}", self.prefix)),
        }
    }

    /// Tries until it goes, is refused, or patience ends. Each try has its time.
    async fn retry<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        operation: Operation,
        what: What,
        bytes: u64,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, ArtifactError> {
        let begun = Instant::now();
        let extra = u32::try_from(bytes / PATIENCE_BYTES).unwrap_or(u32::MAX);
        let each = self
            .patience
            .request
            .saturating_mul(extra.saturating_add(1));
        let mut number = 1;
        loop {
            let failure = match tokio::time::timeout(each, attempt()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Later(Cause::Slow(each)),
            };
            let wait = failure.wait(number, &self.patience);
            match wait.filter(|wait| begun.elapsed() + *wait < self.patience.total) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(ended(failure, operation, what)),
            }
            number += 1;
        }
    }
}

/// Objects, page by page. Clouds list by name, so that one whose page was lost is gone on with.
pub(crate) struct Listing<'a> {
    bucket: &'a Bucket,
    below: Path,
    stream: BoxStream<'static, object_store::Result<ObjectMeta>>,
    last: Option<Path>,
    /// Tries since the last object.
    failed: u32,
}

impl Listing<'_> {
    pub(crate) async fn next(&mut self) -> Result<Option<Found>, ArtifactError> {
        let each = self.bucket.patience.request;
        loop {
            let failure = match tokio::time::timeout(each, self.stream.try_next()).await {
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(meta))) => return Ok(Some(self.found(meta))),
                Ok(Err(error)) => Failure::of(&error, NO_OBJECT),
                Err(_) => Failure::Later(Cause::Slow(each)),
            };
            self.failed += 1;
            // Files come in no order, and their disk does not fail for a moment.
            let wait = failure.wait(self.failed, &self.bucket.patience);
            match wait.filter(|_| self.bucket.folder.is_none()) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(ended(failure, Operation::List, What::Listing)),
            }
            self.stream = match &self.last {
                Some(last) => self.bucket.store.list_with_offset(Some(&self.below), last),
                None => self.bucket.store.list(Some(&self.below)),
            };
        }
    }

    fn found(&mut self, meta: ObjectMeta) -> Found {
        self.failed = 0;
        let name = self.below_prefix(&meta.location);
        self.last = Some(meta.location);
        Found {
            name,
            bytes: meta.size,
            modified: SystemTime::from(meta.last_modified),
        }
    }

    fn below_prefix(&self, location: &Path) -> String {
        let whole = location.as_ref();
        let below = whole
            .strip_prefix(self.bucket.prefix.as_ref())
            .unwrap_or(whole);
        below.trim_start_matches('/').to_owned()
    }
}

fn ended(failure: Failure, operation: Operation, what: What) -> ArtifactError {
    match failure {
        Failure::Missing => ArtifactError::NotFound { what },
        Failure::Exists => {
            let cause = Cause::Unexpected("it is there already".into());
            ArtifactError::Denied {
                operation,
                what,
                cause,
            }
        }
        Failure::Denied(cause) => ArtifactError::Denied {
            operation,
            what,
            cause,
        },
        Failure::Later(cause) => ArtifactError::Unavailable {
            operation,
            what,
            cause,
        },
        Failure::Full(cause) => ArtifactError::Full { what, cause },
    }
}

#[cfg(test)]
mod tests;
