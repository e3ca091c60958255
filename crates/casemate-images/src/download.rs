//! From a registry into the cache: gone on with where it broke off, and once for all who want it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, Weak};

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_RANGE;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::cache::{BeginError, CommitError, Key, Partial};
use crate::images::Place;
use crate::layer::Content;
use crate::registry::{PullError, Source};
use crate::web::{FetchError, Reply};
use crate::{Image, ImageError, Images, Layer, LayerReader};

/// Bytes that are gathered before they are written.
const WRITE_LEN: usize = 1024 * 1024;
/// How often a layer is looked for that others remove as soon as it is there.
const LOOKS_MAX: usize = 3;

/// How much of a layer's blob is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were had, of this download or an earlier one.
    pub received: u64,
    /// Bytes of the whole blob.
    pub total: u64,
}

/// Downloads that run, with the size that an image's manifest says. Each lives as long as someone waits
/// for it: nobody waits for one that cannot end well because another manifest lies.
pub(crate) type Shared = HashMap<(Key, u64), Weak<Running>>;

pub(crate) struct Running {
    state: watch::Receiver<State>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug, Clone)]
enum State {
    Running(u64),
    Done,
    Failed(ImageError),
}

/// What one download is of.
struct Job {
    images: Images,
    image: Image,
    layer: Layer,
    key: Key,
}

impl Images {
    /// The plain tar of layer `n`, fetched into the cache if it is not there. `progress` is told as
    /// the blob comes, and of the whole at the end. Layers are read one after the other or side by
    /// side; the image's limit counts them together.
    ///
    /// # Cancel safety
    /// Dropping it ends the download if nobody else waits for it; what came is gone on with later.
    pub async fn layer(
        &self,
        image: &Image,
        n: usize,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<LayerReader, ImageError> {
        let Some(layer) = image.layers.get(n) else {
            return Err(ImageError::NoLayer {
                reference: image.asked.clone(),
                index: n,
            });
        };
        let total = layer.compressed_bytes;
        let scope = match &image.origin.place {
            Place::Registry { scope, .. } => *scope,
            Place::Archive(archived) => {
                let opened = self.layer_of_archive(image, n, archived).await?;
                progress(Progress {
                    received: total,
                    total,
                });
                return Ok(opened);
            }
        };
        let key = Key {
            scope,
            digest: layer.digest,
        };
        let mut others_failed = false;
        for _ in 0..LOOKS_MAX {
            let cache = Arc::clone(&self.shared.cache);
            if let Some((file, lease)) = self.blocking(move || cache.find(key)).await? {
                progress(Progress {
                    received: total,
                    total,
                });
                let (image, bytes_max) = (image.clone(), self.shared.config.image_bytes_max);
                let content = Content::Cached {
                    file,
                    _lease: lease,
                };
                let open = move || Ok(LayerReader::new(&image, n, content, bytes_max));
                return self.blocking(open).await?;
            }
            let (running, is_ours) = self.join(image, layer, key);
            let told = |received| progress(Progress { received, total });
            match self.wait(&running, told).await {
                Ok(()) => {}
                // It was asked for as another asks: we may fare better, or are told why not.
                Err(_) if !is_ours && !others_failed => others_failed = true,
                Err(error) => return Err(error),
            }
        }
        Err(ImageError::CacheFull { bytes: total })
    }

    /// The download that runs, or a new one; and whether it is new.
    fn join(&self, image: &Image, layer: &Layer, key: Key) -> (Arc<Running>, bool) {
        let downloads = &self.shared.downloads;
        // Whole after a panic: an entry is put in at once.
        let mut downloads = downloads.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = (key, layer.compressed_bytes);
        let known = downloads.get(&wanted).and_then(Weak::upgrade);
        if let Some(running) = known.filter(|running| running.is_running()) {
            return (running, false);
        }
        downloads.retain(|_, running| running.strong_count() > 0);
        let job = Job {
            images: self.clone(),
            image: image.clone(),
            layer: layer.clone(),
            key,
        };
        let (told, state) = watch::channel(State::Running(0));
        let running = Arc::new(Running {
            state,
            _task: AbortOnDropHandle::new(tokio::spawn(job.run(told))),
        });
        downloads.insert(wanted, Arc::downgrade(&running));
        (running, true)
    }

    async fn wait(
        &self,
        running: &Running,
        mut told: impl FnMut(u64) + Send,
    ) -> Result<(), ImageError> {
        let mut state = running.state.clone();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Running(received) => told(received),
                State::Done => return Ok(()),
                State::Failed(error) => return Err(error),
            }
            if state.changed().await.is_err() && running.is_running() {
                // Its task panicked, which it never should.
                let gone = io::Error::other("a download ended without a result");
                return Err(ImageError::disk(self.cache_dir(), gone));
            }
        }
    }

    /// Work on the disk, away from the event loop.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, ImageError> {
        let done = spawn_blocking(work).await;
        let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
        done.map_err(|error| ImageError::disk(self.cache_dir(), error))
    }
}

impl Running {
    fn is_running(&self) -> bool {
        matches!(*self.state.borrow(), State::Running(_))
    }
}

impl Job {
    async fn run(self, told: watch::Sender<State>) {
        // Whoever waits in the queue is not slow.
        let _seat = self.images.shared.seats.acquire().await;
        let patience = self.images.shared.config.patience.layer;
        let fetched = match timeout(patience, self.fetch(&told)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(self.failed(FetchError::Slow.into())),
        };
        let end = match fetched {
            Ok(()) => State::Done,
            Err(error) => State::Failed(error),
        };
        told.send_replace(end);
    }

    async fn fetch(&self, told: &watch::Sender<State>) -> Result<(), ImageError> {
        let (cache, key, size) = (
            Arc::clone(&self.images.shared.cache),
            self.key,
            self.layer.compressed_bytes,
        );
        let begun = self
            .images
            .blocking(move || match cache.begin(key, size) {
                Ok(partial) => Ok(Some(partial)),
                Err(BeginError::Full) => Ok(None),
                Err(BeginError::Io(error)) => Err(error),
            })
            .await?;
        let mut partial = begun.ok_or(ImageError::CacheFull { bytes: size })?;
        let sources = self.image.origin.sources();
        let mut failed = None;
        for (at, source) in sources.iter().enumerate() {
            let tries = self.images.tries(at, sources.len());
            match self.fetch_from(source, tries, partial, told).await {
                Ok(()) => return Ok(()),
                Err((error, Some(left))) if error.is_of_source() => {
                    (failed, partial) = (Some(error), left);
                }
                Err((error, _)) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(|| self.failed(FetchError::Url.into())))
    }

    /// Tries one source. A failure gives back what there is, where another source can go on with it.
    async fn fetch_from(
        &self,
        source: &Source,
        tries: u32,
        mut partial: Partial,
        told: &watch::Sender<State>,
    ) -> Result<(), (ImageError, Option<Partial>)> {
        let (mut tried, mut wait) = (1, self.images.shared.config.patience.retry_wait);
        loop {
            let resumed = partial.length() > 0;
            let (left, error) = match self.fetch_once(source, partial, told).await {
                Ok(whole) => match self.commit(whole).await {
                    Ok(()) => return Ok(()),
                    // What was here before may be what is wrong: without it, once more.
                    Err((error, Some(left))) if resumed => {
                        partial = self.reset(left).await.map_err(|_| (error, None))?;
                        continue;
                    }
                    Err(failed) => return Err(failed),
                },
                Err(Broken::Disk(error)) => return Err((error, None)),
                // From the beginning then, which no answer can misunderstand.
                Err(Broken::Range(left)) => {
                    partial = left;
                    continue;
                }
                Err(Broken::Pull(left, error)) => (left, error),
            };
            if !error.is_retryable() || tried >= tries {
                return Err((self.failed(error), Some(left)));
            }
            tracing::debug!(%source, %error, "going on with a layer");
            partial = left;
            sleep(wait).await;
            (tried, wait) = (tried + 1, wait * 2);
        }
    }

    /// Fetches what is missing, in one answer.
    async fn fetch_once(
        &self,
        source: &Source,
        mut partial: Partial,
        told: &watch::Sender<State>,
    ) -> Result<Partial, Broken> {
        let size = self.layer.compressed_bytes;
        if partial.length() == size {
            return Ok(partial);
        }
        let web = &self.images.shared.web;
        let digest = self.layer.digest.to_string();
        let from = partial.length();
        let mut reply = match source.blob(web, &digest, from).await {
            Ok(reply) => reply,
            Err(error) if from > 0 && is_unsatisfied(&error) => {
                return Err(Broken::Range(self.reset(partial).await?));
            }
            Err(error) => return Err(Broken::Pull(partial, error)),
        };
        match begins_at(&reply) {
            first if first == from => {}
            0 => partial = self.reset(partial).await?,
            _ if from > 0 => return Err(Broken::Range(self.reset(partial).await?)),
            _ => return Err(Broken::Pull(partial, FetchError::Short.into())),
        }
        let (mut gathered, mut length) = (Vec::new(), 0);
        loop {
            let have = partial.length() + length as u64;
            told.send_replace(State::Running(have));
            let chunk = match reply.chunk().await {
                Ok(Some(chunk)) if chunk.len() as u64 > size - have => {
                    return Err(Broken::Pull(partial, FetchError::TooLong(size).into()));
                }
                Ok(chunk) => Ok(chunk),
                Err(error) => Err(error),
            };
            let is_last = !matches!(chunk, Ok(Some(_)));
            if let Ok(Some(chunk)) = &chunk {
                length += chunk.len();
                gathered.push(chunk.clone());
            }
            if length >= WRITE_LEN || is_last {
                partial = self.write(partial, std::mem::take(&mut gathered)).await?;
                length = 0;
            }
            match chunk {
                Ok(Some(_)) => {}
                Ok(None) if partial.length() < size => {
                    return Err(Broken::Pull(partial, FetchError::Short.into()));
                }
                Ok(None) => return Ok(partial),
                Err(error) => return Err(Broken::Pull(partial, error.into())),
            }
        }
    }

    async fn write(&self, mut partial: Partial, chunks: Vec<Bytes>) -> Result<Partial, Broken> {
        let write = move || partial.append(&chunks).map(|()| partial);
        Ok(self.images.blocking(write).await?)
    }

    async fn reset(&self, mut partial: Partial) -> Result<Partial, ImageError> {
        let reset = move || partial.reset().map(|()| partial);
        self.images.blocking(reset).await
    }

    async fn commit(&self, mut whole: Partial) -> Result<(), (ImageError, Option<Partial>)> {
        let committed = self.images.blocking(move || match whole.commit() {
            Ok(()) => Ok(None),
            Err(CommitError::WrongDigest) => Ok(Some(whole)),
            Err(CommitError::Io(error)) => Err(error),
        });
        match committed.await {
            Ok(None) => Ok(()),
            Ok(Some(left)) => {
                let (reference, digest) = (self.image.asked.clone(), self.layer.digest);
                Err((ImageError::WrongDigest { reference, digest }, Some(left)))
            }
            Err(error) => Err((error, None)),
        }
    }

    fn failed(&self, error: PullError) -> ImageError {
        ImageError::pull(&self.image.asked, error)
    }
}

/// What ended an answer early.
enum Broken {
    Pull(Partial, PullError),
    /// Asked for a part, the registry gave another; what there was is gone.
    Range(Partial),
    Disk(ImageError),
}

impl From<ImageError> for Broken {
    fn from(error: ImageError) -> Self {
        Self::Disk(error)
    }
}

fn is_unsatisfied(error: &PullError) -> bool {
    matches!(
        error,
        PullError::Refused { status, .. } if *status == StatusCode::RANGE_NOT_SATISFIABLE
    )
}

/// The first byte of an answer; one that is a part and does not say which is none that fits.
fn begins_at(reply: &Reply) -> u64 {
    if reply.status() != StatusCode::PARTIAL_CONTENT {
        return 0;
    }
    let range = reply.header(CONTENT_RANGE);
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-'));
    first
        .and_then(|(first, _)| first.parse().ok())
        .unwrap_or(u64::MAX)
}
