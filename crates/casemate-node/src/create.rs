//! Making a sandbox: admission, a place in the table, the runtime, the journal, its task.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use casemate_failpoint::{self as failpoint, Point};
use casemate_rpc::{CreateReply, CreateRequest, NodeError};
use casemate_runtime::{CreateError, CreateSpec, RuntimeRecord};
use casemate_types::{EndReason, SandboxId, Timestamp, chain, steady};
use tokio::sync::SemaphorePermit;
use tracing::{info, warn};

use crate::cache;
use crate::journal::{self, Entry};
use crate::node::{Inner, internal};
use crate::offer::Offer;
use crate::sandbox::stop;
use crate::table::{Row, memory_bytes};

impl Inner {
    /// Makes a sandbox, in turn.
    pub(crate) async fn create(
        self: &Arc<Self>,
        request: CreateRequest,
    ) -> Result<CreateReply, NodeError> {
        let node = self;
        let _turn = match request.warm {
            // Others wait for turns because somebody waits for them.
            true => node.free_turn()?,
            false => node.turn().await?,
        };
        let offer = match request.warm {
            true => node.reserve(&request)?,
            false => {
                node.with_room(&request.resources, || node.reserve(&request))
                    .await?
            }
        };
        failpoint::hit(Point::CreateAdmitted);
        node.note_use(cache::portables(&request.layers, request.files.as_ref()));
        let sandbox = request.sandbox.clone();
        let made = node.boot(request, &offer).await;
        if let Err(failed) = &made {
            node.release(&sandbox);
            match failed {
                // As from a snapshot that was deleted just now.
                NodeError::Unsupported { .. } => {
                    info!(sandbox.id = %sandbox, error = %failed, "did not create sandbox {sandbox}");
                }
                _ => {
                    warn!(sandbox.id = %sandbox, error = %failed, "could not create sandbox {sandbox}")
                }
            }
        }
        made
    }

    /// Waits for a turn to boot, if there is room to wait.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, NodeError> {
        if self.draining.load(Ordering::SeqCst) {
            return Err(NodeError::Full {
                what: "the node is being drained".into(),
            });
        }
        let max = self.config.queue_max;
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let permit = if usize::try_from(waiting).unwrap_or(usize::MAX) < max {
            Some(self.boots.acquire().await)
        } else {
            None
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let permit = permit.ok_or(NodeError::QueueFull { max })?;
        permit.map_err(|e| internal(&e))
    }

    fn free_turn(&self) -> Result<SemaphorePermit<'_>, NodeError> {
        let draining = self.draining.load(Ordering::SeqCst);
        let busy = draining || self.waiting.load(Ordering::Relaxed) > 0;
        let turn = self.boots.try_acquire().ok().filter(|_| !busy);
        turn.ok_or_else(|| NodeError::Full {
            what: "other sandboxes are being made".into(),
        })
    }

    fn reserve(&self, request: &CreateRequest) -> Result<Offer, NodeError> {
        let mut table = self.lock();
        if table.sandboxes.contains_key(&request.sandbox) {
            return Err(NodeError::Exists(request.sandbox.clone()));
        }
        match request.warm {
            true => {
                let load = self.load(&table);
                let admission = &self.config.admission;
                admission.admit_warm(&load, &request.resources)?;
            }
            false => self.admit(&table, &request.resources, false)?,
        }
        table.refuse_leaving(&request.layers, request.files.as_ref())?;
        let row = Row::Booting {
            resources: request.resources,
            layers: request.layers.clone(),
            files: request.files.clone(),
            warm: request.warm,
            exited: false,
        };
        table.sandboxes.insert(request.sandbox.clone(), row);
        table.memory_promised_bytes += memory_bytes(&request.resources);
        table.cache.release(request.sandbox.as_str());
        Ok(table.offer.clone())
    }

    async fn boot(
        self: &Arc<Self>,
        request: CreateRequest,
        offer: &Offer,
    ) -> Result<CreateReply, NodeError> {
        let begun = Instant::now();
        let (sandbox, spec) = (request.sandbox.clone(), offer.spec(&request)?);
        let entry = self.start(&request, spec, Point::CreateServes).await?;
        failpoint::hit(Point::CreateKept);
        let reply = CreateReply {
            started_at: entry.started_at,
            ends_at: entry.ends_at,
        };
        let duration_us = begun.elapsed().as_micros();
        self.own(entry);
        info!(sandbox.id = %sandbox, duration_us, "created sandbox {sandbox}");
        Ok(reply)
    }

    /// Starts a sandbox and journals it; one that was journalled under its id is replaced when the
    /// new one serves. On an error nothing is left of the new one.
    pub(crate) async fn start(
        &self,
        request: &CreateRequest,
        spec: CreateSpec,
        serves: Point,
    ) -> Result<Entry, NodeError> {
        let sandbox = request.sandbox.clone();
        let noted = OnceLock::new();
        // Nothing is written before it is born: what a crash leaves half made carries the
        // instance's name, and the runtime's sweep ends what no entry names.
        let born = |record: &RuntimeRecord| {
            let started_at = steady::now();
            let entry = Entry {
                version: journal::VERSION,
                boot: self.boot.clone(),
                sandbox: request.sandbox.clone(),
                team: request.team.clone(),
                template: request.template.clone(),
                layers: request.layers.clone(),
                resources: request.resources,
                network: request.network.clone(),
                started_at,
                ends_at: ends_at(started_at, request.life_ms),
                record: Some(record.clone()),
                recorded: false,
                memory_kills: Some(0),
                on_timeout: request.on_timeout,
                pause: None,
                warm: request.warm,
                creator: request.creator.clone(),
                entrance: request.entrance.clone(),
            };
            self.journal.note(&entry).map_err(io::Error::other)?;
            failpoint::hit(Point::CreateNoted);
            let _ = noted.set(entry);
            Ok(())
        };
        let made = self.runtime.create_noting(spec, &born).await;
        let entry = match (made, noted.into_inner()) {
            (Ok(_), Some(entry)) => entry,
            (Ok(_), None) => {
                self.undo(&sandbox).await;
                return Err(NodeError::Internal {
                    why: "the runtime told nobody of a birth".into(),
                });
            }
            (Err(failed), _) => {
                self.forget_noted(&sandbox);
                return Err(create_error(failed));
            }
        };
        failpoint::hit(serves);
        if let Err(failed) = self.journal.keep(&sandbox) {
            // Unknown to the journal it would not survive us: better not to have it at all.
            self.undo(&sandbox).await;
            return Err(internal(&failed));
        }
        Ok(entry)
    }

    /// Ends what serves already, however long that takes: nobody else would.
    async fn undo(&self, sandbox: &SandboxId) {
        stop(self, sandbox, EndReason::Killed).await;
        self.forget_noted(sandbox);
    }

    fn forget_noted(&self, sandbox: &SandboxId) {
        if let Err(failed) = self.journal.forget(sandbox) {
            // It counts for nothing, and goes with the next start.
            let error = chain(&failed);
            warn!(sandbox.id = %sandbox, error, "cannot remove a noted journal entry");
        }
    }
}

/// The deadline of a life that begins then.
pub(crate) fn ends_at(started_at: Timestamp, life_ms: u64) -> Timestamp {
    let life = jiff::SignedDuration::from_millis(i64::try_from(life_ms).unwrap_or(i64::MAX / 4));
    started_at.checked_add(life).unwrap_or(Timestamp::MAX)
}

fn create_error(error: CreateError) -> NodeError {
    match error {
        CreateError::Exists(sandbox) => NodeError::Exists(sandbox),
        CreateError::Capacity { what, .. } => NodeError::Full { what: what.into() },
        CreateError::Unsupported { why, .. } => NodeError::Unsupported { why },
        CreateError::Agent { .. } | CreateError::Step { .. } => {
            NodeError::CreateFailed { why: chain(&error) }
        }
    }
}
