//! Snapshots of running sandboxes: taken and listed.
//!
//! Files first, row after: a crash in between leaves files that no row wants, as may an error that leaves
//! open whether the row was written. They go with the next comparison ([`crate::reconcile`]). A deletion
//! goes the other way round ([`crate::templates::delete`]).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use casemate_failpoint::{self as failpoint, Point};
use casemate_rpc::NodeError;
use casemate_store::{
    Build, BuildId, NewSnapshot, PlacedSnapshot, Sandbox, Snapshot, SnapshotCursor, SnapshotFilter,
    StoreError,
};
use casemate_types::limits::PAGE_ROWS_MAX;
use casemate_types::template::{TemplateRef, TemplateRefError};
use casemate_types::{SandboxId, SnapshotId, TemplateId, Timestamp, chain, steady};

use super::connect::{busy, runs};
use super::{ChangeError, stands};
use crate::Control;
use crate::auth::TeamCaller;
use crate::cursor::{self, InvalidCursor};
use crate::transitions::Doing;

/// As clients name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotView {
    /// A template reference with a tag.
    pub id: String,
    /// `slug/alias`, without the tag.
    pub names: Vec<String>,
}

/// Why no snapshot was taken. The texts are E2B's where E2B has one.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("Invalid name: {0}")]
    Name(#[from] TemplateRefError),
    #[error("namespace '{namespace}' must match your team '{team}'")]
    Namespace { namespace: String, team: String },
    #[error(
        "Alias '{0}' is already used: it is the id of a template, or the name of one that is no \
         snapshot"
    )]
    Taken(String),
    /// This isolation kind keeps files, and memory was asked for by name.
    #[error(
        "the memory of a running sandbox cannot be kept on this platform; without 'memory: true' \
         its files are"
    )]
    Memory,
    #[error("Sandbox '{sandbox}' cannot be snapshotted while in '{state}' state")]
    Busy {
        sandbox: SandboxId,
        state: &'static str,
    },
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Why a list has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ListSnapshotsError {
    #[error("Invalid next token")]
    Cursor(#[from] InvalidCursor),
    #[error("Invalid name: {0}")]
    Name(#[from] TemplateRefError),
    #[error("namespace '{namespace}' must match your team '{team}'")]
    Namespace { namespace: String, team: String },
    #[error("the store failed in a list")]
    Store(#[from] StoreError),
}

/// What a client wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListSnapshots {
    pub sandbox: Option<SandboxId>,
    /// A name or id, with or without a tag.
    pub name: Option<String>,
    /// 1 to [`PAGE_ROWS_MAX`].
    pub limit: u32,
    pub next_token: Option<String>,
}

/// A page, and how to go on.
#[derive(Debug)]
pub struct SnapshotPage {
    pub snapshots: Vec<SnapshotView>,
    pub next_token: Option<String>,
}

/// Files at the node that have no row yet, or stand for a moment only.
#[derive(Clone, Default)]
pub(crate) struct Unrecorded(Arc<Mutex<HashSet<SnapshotId>>>);

pub(crate) struct Pending {
    all: Unrecorded,
    files: SnapshotId,
}

impl Unrecorded {
    pub(crate) fn begin(&self) -> Pending {
        let files = SnapshotId::random();
        self.lock().insert(files.clone());
        Pending {
            all: self.clone(),
            files,
        }
    }

    pub(crate) fn contains(&self, files: &SnapshotId) -> bool {
        self.lock().contains(files)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<SnapshotId>> {
        self.0
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

impl Pending {
    pub(crate) fn files(&self) -> &SnapshotId {
        &self.files
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.all.lock().remove(&self.files);
    }
}

impl Control {
    /// Keeps the files of a running sandbox of the caller's team under a name, or under an id alone.
    /// `memory`: what was asked for by name.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn take_snapshot(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
        name: Option<&str>,
        memory: Option<bool>,
    ) -> Result<SnapshotView, SnapshotError> {
        let row = self.snapshottable(caller, id).await?;
        let name = name.map(|name| own_name(caller, name)).transpose()?;
        if memory == Some(true) {
            return Err(SnapshotError::Memory);
        }
        let turn = self.transitions.begin(id, Doing::Snapshotting).await;
        let turn = turn.map_err(|other| in_state(id, other.doing))?;
        // It may have been paused before the turn was ours.
        let row = self.snapshottable_row(caller, row.id).await?;
        let pending = self.unrecorded.begin();
        self.keep_files(&row.node, id, pending.files()).await?;
        let snapshot = NewSnapshot {
            team: row.team.clone(),
            namespace: caller.team.slug.clone(),
            alias: name.as_ref().map(|name| name.name.clone()),
            tag: name.map_or_else(|| "default".to_owned(), |name| name.tag),
            build: self.build_of(&row, pending.files()).await?,
            node: row.node.clone(),
            sandbox: id.clone(),
        };
        let placed = match self.store.snapshot_insert(&snapshot).await {
            Ok(placed) => placed,
            Err(error) => {
                if error.is_in_doubt() {
                    // If it has a row, its name leads there. The next comparison asks for that, and takes
                    // the files of which there is none.
                    self.forget_builds().await;
                } else {
                    self.drop_files_at(&row.node, vec![pending.files().clone()]);
                }
                return Err(match (error, snapshot.alias) {
                    (StoreError::Exists { .. }, Some(alias)) => SnapshotError::Taken(alias),
                    (error, _) => ChangeError::Store(error).into(),
                });
            }
        };
        failpoint::hit(Point::SnapshotRecorded);
        self.has_news();
        drop(pending);
        turn.done().await;
        let PlacedSnapshot { template, replaced } = placed;
        // First, so that nobody begins with files that go.
        self.forget_builds().await;
        self.drop_files(replaced.into_iter().collect());
        let view = view(
            &caller.team.slug,
            &template,
            snapshot.alias.as_deref(),
            &snapshot.tag,
        );
        self.note_snapshot(&row, &view.id);
        Ok(view)
    }

    /// A sandbox of the caller's team that runs; nothing is being done to it.
    pub(crate) async fn snapshottable(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
    ) -> Result<Sandbox, SnapshotError> {
        let row = self.snapshottable_row(caller, id.clone()).await;
        // What is being paused may have a row that says paused already.
        if let Some(other) = self.transitions.of(id) {
            self.must_stand(caller, id).await?;
            return Err(in_state(id, other.doing));
        }
        Ok(row?)
    }

    async fn snapshottable_row(
        &self,
        caller: &TeamCaller,
        id: SandboxId,
    ) -> Result<Sandbox, ChangeError> {
        let row = self.own_row(caller, &id).await?;
        let runs = |row: &Sandbox| stands(row, steady::now()).is_some_and(|state| runs(&state));
        row.filter(runs).ok_or(ChangeError::NotFound(id))
    }

    /// Has the node keep them.
    pub(crate) async fn keep_files(
        &self,
        node: &str,
        id: &SandboxId,
        files: &SnapshotId,
    ) -> Result<(), ChangeError> {
        let limit = self.config.create_timeout;
        let kept = async { self.nodes.port(node)?.snapshot(id, files).await };
        let kept = tokio::time::timeout(limit, kept).await;
        let reply = match kept.unwrap_or(Err(NodeError::Unreachable)) {
            Ok(reply) => reply,
            Err(NodeError::NotFound(_)) => return Err(ChangeError::NotFound(id.clone())),
            Err(NodeError::Paused(_)) => return Err(busy(id, Doing::Pausing)),
            Err(source) => {
                tracing::warn!(
                    sandbox.id = %id, error = chain(&source),
                    "could not keep the files of sandbox {id}"
                );
                // What the node did all the same is found by the next comparison.
                return Err(self.not_done(node, id, source).await);
            }
        };
        failpoint::hit(Point::SnapshotAnswered);
        let frozen_us = reply.frozen_us;
        tracing::debug!(sandbox.id = %id, snapshot.id = %files, frozen_us, "kept the files of {id}");
        Ok(())
    }

    /// What a sandbox is made from that begins with these files.
    async fn build_of(&self, row: &Sandbox, files: &SnapshotId) -> Result<Build, ChangeError> {
        let made_from = self.store.build_by_id(&row.build).await?;
        let made_from = made_from.ok_or_else(|| ChangeError::NotFound(row.id.clone()))?;
        Ok(Build {
            id: BuildId::random(),
            template: TemplateId::random(),
            resources: row.resources,
            files: Some(files.clone()),
            created_at: Timestamp::now(),
            ..made_from
        })
    }

    /// One page of the caller's snapshots, newest first.
    pub async fn list_snapshots(
        &self,
        caller: &TeamCaller,
        ask: &ListSnapshots,
    ) -> Result<SnapshotPage, ListSnapshotsError> {
        let team = &caller.team.id;
        let after = match ask.next_token.as_deref() {
            None | Some("") => None,
            Some(token) => Some(cursor::decode_snapshot(&self.keys, team, token)?),
        };
        let (name, tag) = match ask.name.as_deref() {
            None => (None, None),
            Some(text) => {
                let name = TemplateRef::parse(text)?;
                if let Some(namespace) = name.namespace
                    && namespace != caller.team.slug
                {
                    return Err(ListSnapshotsError::Namespace {
                        namespace,
                        team: caller.team.slug.clone(),
                    });
                }
                // Without a tag every one is meant.
                (Some(name.name), text.contains(':').then_some(name.tag))
            }
        };
        let filter = SnapshotFilter {
            team: team.clone(),
            sandbox: ask.sandbox.clone(),
            name,
            tag,
        };
        let limit = ask.limit.clamp(1, PAGE_ROWS_MAX);
        let rows = self.store.snapshot_page(&filter, after.as_ref(), limit + 1);
        let mut rows = rows.await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next_token = rows.last().filter(|_| more).map(|last| {
            let cursor = SnapshotCursor {
                created_at: last.created_at,
                build: last.build,
                tag: last.tag.clone(),
            };
            cursor::encode_snapshot(&self.keys, team, &cursor)
        });
        let slug = &caller.team.slug;
        let shown = |one: &Snapshot| view(slug, &one.template, one.alias.as_deref(), &one.tag);
        Ok(SnapshotPage {
            snapshots: rows.iter().map(shown).collect(),
            next_token,
        })
    }
}

/// What a team may call its snapshot.
fn own_name(caller: &TeamCaller, text: &str) -> Result<TemplateRef, SnapshotError> {
    let name = TemplateRef::parse_new(text)?;
    match &name.namespace {
        Some(namespace) if *namespace != caller.team.slug => Err(SnapshotError::Namespace {
            namespace: namespace.clone(),
            team: caller.team.slug.clone(),
        }),
        Some(_) | None => Ok(name),
    }
}

fn in_state(id: &SandboxId, doing: Doing) -> SnapshotError {
    SnapshotError::Busy {
        sandbox: id.clone(),
        state: doing.state(),
    }
}

fn view(slug: &str, template: &TemplateId, alias: Option<&str>, tag: &str) -> SnapshotView {
    match alias {
        None => SnapshotView {
            id: format!("{template}:{tag}"),
            names: Vec::new(),
        },
        Some(alias) => SnapshotView {
            id: format!("{slug}/{alias}:{tag}"),
            names: vec![format!("{slug}/{alias}")],
        },
    }
}
