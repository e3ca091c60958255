//! The figures, one file each.

mod build;
mod burst;
mod create;
mod forks;
mod layers;
mod memory;
mod mounts;
mod pause;
mod processor;
mod rebuilds;
mod round_trip;
mod scale;
mod sdk;
mod snapshot;
pub(super) mod stores;
mod throughput;
mod warm;

use std::time::Duration;

use casemate_client::api::{AutoResume, NewSandbox, Sandbox};
use casemate_client::envd::process::Command;
use casemate_client::{Api, BaseUrl, Envd};
use futures_util::future::join_all;

use super::error::BenchError;
use super::floor_process::FloorProcess;
use super::report::Figure;
use super::{Options, Part};

/// Longer than any bench, so that none ends under it; not for ever, should the bench be killed.
const LIFE: Duration = Duration::from_secs(3600);
/// Runs before counting: connections are made, caches are warm, as in any life longer than one call.
const WARM_UP: usize = 5;

/// What is read of a script's output.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// How many sandboxes are created at the same time where that is not what is measured.
const CREATES_AT_ONCE: usize = 16;
/// How many sandboxes are ended at the same time.
const KILLS_AT_ONCE: usize = 16;

/// A bench under way.
pub(super) struct Bench<'a> {
    pub(super) api: &'a Api,
    pub(super) edge: &'a BaseUrl,
    pub(super) options: &'a Options,
    pub(super) floor: FloorProcess,
    pub(super) figures: Vec<Figure>,
    /// What the reader has to know beside the figures.
    pub(super) notes: Vec<String>,
}

impl Bench<'_> {
    pub(super) async fn measure(&mut self, part: Part) -> Result<(), BenchError> {
        let scale = &self.options.scale;
        match part {
            Part::Memory => {
                self.idle_platform()?;
                self.idle_sandboxes().await
            }
            Part::Create => self.create_and_run().await,
            Part::RoundTrip => self.round_trip().await,
            Part::Burst => self.burst().await,
            Part::Pause => self.pause_and_resume().await,
            Part::Snapshot => {
                self.snapshot().await?;
                self.begin_with_snapshot().await
            }
            Part::Forks => self.forks().await,
            Part::Sdk => self.sdk().await,
            Part::Warm => self.warm().await,
            Part::Rebuilds => self.rebuilds().await,
            Part::Clients => self.throughput(scale).await,
            Part::Mounts => self.beside_mounts(scale).await,
            Part::IdleProcessor => self.idle_processor(scale).await,
            Part::Live => self.beside_live(scale).await,
            Part::Layers => self.beside_layers(scale).await,
            Part::Stores => self.beside_databases().await,
        }
    }

    async fn create(&self) -> Result<Sandbox, BenchError> {
        self.create_from(&self.options.template).await
    }

    /// From a template or a snapshot.
    async fn create_from(&self, template: &str) -> Result<Sandbox, BenchError> {
        self.create_at(self.api, template).await
    }

    async fn create_at(&self, api: &Api, template: &str) -> Result<Sandbox, BenchError> {
        let new = NewSandbox {
            template: template.to_owned(),
            timeout: Some(LIFE),
            auto_resume: Some(AutoResume { enabled: true }),
            ..NewSandbox::default()
        };
        let created = api.sandbox_create(&new).await;
        created.map_err(|source| BenchError::Api {
            action: "create a sandbox",
            source,
        })
    }

    fn envd(&self, sandbox: &Sandbox) -> Result<Envd, BenchError> {
        let token = sandbox.envd_access_token.as_deref();
        Ok(self.api.envd(self.edge, &sandbox.sandbox_id, token)?)
    }

    /// This many sandboxes, or none.
    async fn create_many(&self, count: usize) -> Result<Vec<String>, BenchError> {
        let mut ids = Vec::with_capacity(count);
        let mut refused = None;
        while ids.len() < count && refused.is_none() {
            let some = CREATES_AT_ONCE.min(count - ids.len());
            for created in join_all((0..some).map(|_| self.create())).await {
                match created {
                    Ok(sandbox) => ids.push(sandbox.sandbox_id),
                    Err(error) => refused = Some(error),
                }
            }
        }
        match refused {
            None => Ok(ids),
            Some(error) => {
                self.kill(&ids).await?;
                Err(error)
            }
        }
    }

    /// Ends sandboxes; the first refusal is told after all were tried.
    async fn kill(&self, ids: &[String]) -> Result<(), BenchError> {
        self.kill_at(self.api, ids).await
    }

    async fn kill_at(&self, api: &Api, ids: &[String]) -> Result<(), BenchError> {
        let mut refused = None;
        for some in ids.chunks(KILLS_AT_ONCE) {
            for killed in join_all(some.iter().map(|id| api.sandbox_kill(id))).await {
                refused = refused.or(killed.err());
            }
        }
        match refused {
            None => Ok(()),
            Some(source) => Err(BenchError::Api {
                action: "end a sandbox",
                source,
            }),
        }
    }
}

/// Runs a shell's script and answers what it wrote, which is short.
async fn run_script(envd: &Envd, script: &str) -> Result<String, BenchError> {
    let fault = |source| BenchError::Envd {
        action: "run a script",
        source,
    };
    let command = Command {
        program: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        ..Command::default()
    };
    let events = envd.process_start(command).await.map_err(fault)?;
    let read = events.collect(OUTPUT_BYTES_MAX).await.map_err(fault)?;
    match read.end.exit_code {
        0 => Ok(String::from_utf8_lossy(&read.stdout).into_owned()),
        _ => Err(BenchError::Script {
            status: read.end.status,
        }),
    }
}

/// Runs `/bin/true` and sees to it that it ended well.
async fn run_true(envd: &Envd) -> Result<(), BenchError> {
    let fault = |source| BenchError::Envd {
        action: "run /bin/true",
        source,
    };
    let command = Command {
        program: "/bin/true".to_owned(),
        ..Command::default()
    };
    let events = envd.process_start(command).await.map_err(fault)?;
    let end = events.collect(0).await.map_err(fault)?.end;
    if end.exit_code == 0 {
        Ok(())
    } else {
        Err(BenchError::Command { status: end.status })
    }
}
