//! Templates as OCI archives.
//!
//! ```text
//! sandbox's agent ─tar─▶ gzip, hash ─▶ a file without a name ─▶ OCI archive ─▶ client
//! ```
//!
//! The archive says first how long the layer is, so all of it is on the disk before the first byte goes
//! out. Its file is in the team's folder of uploads while it is written, and is swept with what is left
//! there; then it has no name any more, and goes with whoever has it open.

mod spool;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use casemate_build::builder::{self, BuildError, Export};
use casemate_images::{NewImage, PackedLayer, Platform};
use casemate_store::{Build, Template};
use casemate_types::template::TemplateRef;
use casemate_types::{TeamId, chain};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::TemplateError;
use super::uploads::blocking;
use crate::Control;
use crate::auth::TeamCaller;
use crate::tasks::{TaskKind, TaskLost};

/// Of the time in which a client takes all of it: what SDKs allow for an upload.
const SENDING_TIME_MAX: Duration = Duration::from_secs(3600);
/// Bytes that are read at once, and pieces of them that wait for the client.
const PIECE_BYTES: usize = 256 * 1024;
const PIECES_MAX: usize = 4;
/// Pieces of the plain tar that wait for being packed.
const PLAIN_PIECES_MAX: usize = 8;

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("the team has an export under way: at most one at a time is possible")]
    Busy,
    #[error("the template cannot be an archive: {0}")]
    Files(String),
    #[error("the platform cannot export a template now; try again later")]
    Unavailable,
    #[error("the template's archive has more than {0} bytes, which is the most that one may have")]
    TooLarge(u64),
    #[error("the disk of this platform is full")]
    DiskFull,
    /// Of the process, or of the client.
    #[error("the export was cancelled")]
    Cancelled,
    #[error("could not write an export")]
    Write(#[source] io::Error),
    #[error("could not export a template")]
    Build(#[source] BuildError),
    #[error(transparent)]
    Lost(#[from] TaskLost),
}

/// An archive on its way to the client. Dropped, it leaves nothing.
pub struct TemplateArchive {
    /// Of the whole archive.
    pub bytes: u64,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
}

impl TemplateArchive {
    /// The next piece. Fewer than [`Self::bytes`] in all is an archive that was cut off.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        self.pieces.recv().await
    }
}

/// Exports of this process that are under way: one a team. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Exporting(Arc<Mutex<HashMap<TeamId, CancellationToken>>>);

/// One of them, until it is dropped.
struct Turn {
    of: Exporting,
    team: TeamId,
    cancel: CancellationToken,
}

impl Exporting {
    fn begin(&self, team: &TeamId, cancel: &CancellationToken) -> Option<Turn> {
        let mut all = self.lock();
        if all.contains_key(team) {
            return None;
        }
        all.insert(team.clone(), cancel.clone());
        Some(Turn {
            of: self.clone(),
            team: team.clone(),
            cancel: cancel.clone(),
        })
    }

    /// This process ends.
    pub(crate) fn cancel_all(&self) {
        self.lock().values().for_each(CancellationToken::cancel);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TeamId, CancellationToken>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.of.lock().remove(&self.team);
    }
}

impl Control {
    /// An OCI archive with one image of the template that `text` names, and that the caller may use.
    ///
    /// # Cancel safety
    /// Dropping the future ends the export, and leaves nothing.
    pub async fn export_template(
        self: &Arc<Self>,
        caller: &TeamCaller,
        text: &str,
    ) -> Result<TemplateArchive, ExportError> {
        let resolved = self.look_up_template(caller, text).await?;
        if self.nodes.connected().is_empty() {
            return Err(ExportError::Unavailable);
        }
        let cancel = CancellationToken::new();
        let turn = self.exporting.begin(&caller.team.id, &cancel);
        let turn = turn.ok_or(ExportError::Busy)?;
        // The sandbox is ended also when nobody waits for the archive any more.
        let ended = cancel.drop_guard();
        let (control, text) = (Arc::clone(self), text.to_owned());
        let work = async move { control.export(turn, resolved, text).await };
        let archive = self.tasks.detached(work).await??;
        // From here on it ends with its pieces.
        ended.disarm();
        Ok(archive)
    }

    async fn export(
        self: Arc<Self>,
        turn: Turn,
        (template, build): (Template, Build),
        text: String,
    ) -> Result<TemplateArchive, ExportError> {
        let (layer, file) = self.packed(&turn, &build).await?;
        let id = &template.id;
        let named = TemplateRef::parse(&text).map_err(TemplateError::from)?;
        let said = builder::exported(&build);
        let image = NewImage {
            title: text,
            name: named.tag,
            created: build.created_at,
            created_by: format!("casemate template export {id} {}", build.id),
            platform: Platform::host(),
            env: said.process.env,
            user: said.process.user,
            workdir: said.process.workdir,
            command: said.command,
            labels: said.process.labels,
            layer,
        };
        let (before, behind) = image.around_layer();
        let bytes = before.len() as u64 + layer.bytes + behind.len() as u64;
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let sending = Sending {
            before: before.into(),
            file: Arc::new(file),
            layer_bytes: layer.bytes,
            behind: behind.into(),
            silence_max: self.config.uploads.silence_max,
        };
        tracing::info!(
            template.id = %id, build.id = %build.id, team.id = %turn.team, bytes,
            "exported template {id}"
        );
        self.tasks.spawn(TaskKind::Request, async move {
            let cancelled = turn.cancel.clone();
            let sent = timeout(SENDING_TIME_MAX, sending.send(&sender, turn));
            // Cut off, the client has fewer bytes than it was told of, so that it takes no part for the
            // whole.
            tokio::select! {
                sent = sent => drop(sent),
                () = cancelled.cancelled() => {}
            }
        });
        Ok(TemplateArchive { bytes, pieces })
    }

    /// The template's files as a layer, in a file that has no name any more.
    async fn packed(&self, turn: &Turn, build: &Build) -> Result<(PackedLayer, File), ExportError> {
        let (team, uploads) = (&turn.team, &self.config.uploads);
        let (dir, reserve) = (uploads.dir.join(team.as_str()), uploads.disk_reserve_bytes);
        let bytes_max = self.config.builds.export_bytes_max;
        let (sender, plain) = mpsc::channel(PLAIN_PIECES_MAX);
        let spooled = blocking(move || Ok(spool::spool(&dir, plain, bytes_max, reserve)));
        let export = Export {
            team: team.clone(),
            build: build.clone(),
        };
        let node = self.node_for_builds(team);
        let node = node.map_err(|error| ExportError::Build(error.into()))?;
        // While it waits for its turn, it is needed as by a build.
        let _held = self.builder.held().hold_build(build);
        let hold = format!("export of {}", build.id);
        if let Err(error) = self.bring_in_any_case(&node, build, &hold).await {
            // The builder says what it lacks.
            tracing::warn!(
                build.id = %build.id, node = node.name, error = chain(&error),
                "could not bring build {} to the node that exports it", build.id
            );
        }
        let export_at = &node.port;
        let packed = self
            .builder
            .export(&export, export_at, sender, &turn.cancel);
        let (spooled, packed) = tokio::join!(spooled, packed);
        // Where the disk is full, that is why nobody took what was packed.
        let (layer, file) = spooled.map_err(ExportError::Write)??;
        match packed {
            Ok(()) => Ok((layer, file)),
            Err(BuildError::Cancelled) => Err(ExportError::Cancelled),
            Err(BuildError::Recipe { message, .. }) => Err(ExportError::Files(message)),
            Err(BuildError::Refused(why)) => {
                tracing::warn!(team.id = %team, why, "a template was not exported");
                Err(ExportError::Unavailable)
            }
            Err(error) => {
                tracing::error!(
                    team.id = %team, build.id = %build.id, error = chain(&error),
                    "could not export a template"
                );
                Err(ExportError::Build(error))
            }
        }
    }
}

/// What is sent, in its order.
struct Sending {
    before: Bytes,
    file: Arc<File>,
    layer_bytes: u64,
    behind: Bytes,
    /// How long the client may take for a piece.
    silence_max: Duration,
}

impl Sending {
    /// Gives up where nobody takes it. Whoever has all of it finds the turn free.
    async fn send(self, to: &mpsc::Sender<io::Result<Bytes>>, turn: Turn) -> Option<()> {
        let put = async |piece: io::Result<Bytes>| {
            let sent = timeout(self.silence_max, to.send(piece)).await;
            sent.ok()?.ok()
        };
        put(Ok(self.before)).await?;
        let mut at = 0;
        while at < self.layer_bytes {
            let left = usize::try_from(self.layer_bytes - at).unwrap_or(usize::MAX);
            let file = Arc::clone(&self.file);
            let read = blocking(move || {
                let mut piece = vec![0; left.min(PIECE_BYTES)];
                file.read_exact_at(&mut piece, at)?;
                Ok(Bytes::from(piece))
            });
            let piece = match read.await {
                Ok(piece) => piece,
                Err(error) => {
                    tracing::error!(%error, "could not read an export");
                    return put(Err(error)).await;
                }
            };
            at += piece.len() as u64;
            put(Ok(piece)).await?;
        }
        let room = timeout(self.silence_max, to.reserve()).await.ok()?.ok()?;
        drop(turn);
        room.send(Ok(self.behind));
        Some(())
    }
}
