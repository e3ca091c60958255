//! Sandboxes, whole and as a reconciler sees them.

use std::time::Duration;

use casemate_types::sandbox::PublicState;
use casemate_types::{
    EndReason, Ingress, Kept, NetworkPolicy, OnTimeout, Resources, SandboxId, SandboxState,
    SnapshotId, TeamId, TemplateId,
};

use super::{Misread, Named, from_json, small, timestamp, to_json, unknown_word};
use crate::{AliveSandbox, BuildId, Sandbox, StoreError};

#[derive(sqlx::FromRow)]
pub(crate) struct SandboxRow {
    id: String,
    team_id: String,
    template_id: String,
    alias: Option<String>,
    build_id: String,
    node: String,
    envd_version: String,
    vcpus: i64,
    memory_mib: i64,
    disk_mib: i64,
    processes_max: i64,
    metadata: String,
    secured: bool,
    network: String,
    timeout_us: i64,
    on_timeout: String,
    started_at: i64,
    ends_at: i64,
    state: String,
    ended_at: Option<i64>,
    end_reason: Option<String>,
    generation: i64,
    kept: Option<String>,
    auto_resume: bool,
    ingress: String,
    envs: Option<Vec<u8>>,
    stored_files: Option<String>,
}

#[derive(sqlx::FromRow)]
pub(crate) struct AliveRow {
    id: String,
    team_id: String,
    node: String,
    on_timeout: String,
    started_at: i64,
    ends_at: i64,
    state: String,
    kept: Option<String>,
    ingress: String,
    generation: i64,
    stored_files: Option<String>,
}

pub(crate) fn network_text(policy: &NetworkPolicy) -> String {
    to_json(policy)
}

pub(crate) fn ingress_text(ingress: &Ingress) -> String {
    to_json(ingress)
}

pub(crate) fn state_word(state: PublicState) -> &'static str {
    match state {
        PublicState::Running => "running",
        PublicState::Paused => "paused",
    }
}

pub(crate) fn kept_word(kept: Kept) -> &'static str {
    match kept {
        Kept::Memory => "memory",
        Kept::Files => "files",
    }
}

fn kept(word: &str) -> Result<Kept, Misread> {
    match word {
        "memory" => Ok(Kept::Memory),
        "files" => Ok(Kept::Files),
        other => Err(unknown_word("pause", other)),
    }
}

pub(crate) fn reason_word(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Killed => "killed",
        EndReason::Expired => "expired",
        EndReason::Exited => "exited",
        EndReason::Lost => "lost",
        EndReason::Orphaned => "orphaned",
        EndReason::Retention => "retention",
    }
}

fn reason(word: &str) -> Result<EndReason, Misread> {
    match word {
        "killed" => Ok(EndReason::Killed),
        "expired" => Ok(EndReason::Expired),
        "exited" => Ok(EndReason::Exited),
        "lost" => Ok(EndReason::Lost),
        "orphaned" => Ok(EndReason::Orphaned),
        "retention" => Ok(EndReason::Retention),
        other => Err(unknown_word("end reason", other)),
    }
}

pub(crate) fn on_timeout_word(on_timeout: OnTimeout) -> &'static str {
    match on_timeout {
        OnTimeout::Kill => "kill",
        OnTimeout::Pause(Kept::Memory) => "pause",
        OnTimeout::Pause(Kept::Files) => "pause_files",
    }
}

fn on_timeout(word: &str) -> Result<OnTimeout, Misread> {
    match word {
        "kill" => Ok(OnTimeout::Kill),
        "pause" => Ok(OnTimeout::Pause(Kept::Memory)),
        "pause_files" => Ok(OnTimeout::Pause(Kept::Files)),
        other => Err(unknown_word("action on timeout", other)),
    }
}

impl TryFrom<SandboxRow> for Sandbox {
    type Error = StoreError;

    fn try_from(row: SandboxRow) -> Result<Self, StoreError> {
        let id = row.id.clone();
        read_sandbox(row).named("sandbox", &id)
    }
}

impl TryFrom<AliveRow> for AliveSandbox {
    type Error = StoreError;

    fn try_from(row: AliveRow) -> Result<Self, StoreError> {
        let id = row.id.clone();
        read_alive(row).named("sandbox", &id)
    }
}

/// Of one that is not dead.
fn read_life(state: &str, ends_at: i64, word: Option<&str>) -> Result<SandboxState, Misread> {
    match state {
        "running" => Ok(SandboxState::Running {
            ends_at: timestamp(ends_at)?,
        }),
        "paused" => Ok(SandboxState::Paused {
            at: timestamp(ends_at)?,
            kept: kept(word.ok_or("paused, and nothing says what is kept")?)?,
        }),
        other => Err(unknown_word("state", other)),
    }
}

fn read_state(row: &SandboxRow) -> Result<SandboxState, Misread> {
    match row.state.as_str() {
        "dead" => Ok(SandboxState::Dead {
            ended_at: timestamp(row.ended_at.ok_or("dead without a time")?)?,
            reason: reason(row.end_reason.as_deref().ok_or("dead without a reason")?)?,
        }),
        alive => read_life(alive, row.ends_at, row.kept.as_deref()),
    }
}

fn read_sandbox(row: SandboxRow) -> Result<Sandbox, Misread> {
    Ok(Sandbox {
        id: SandboxId::parse(&row.id)?,
        team: TeamId::parse(&row.team_id)?,
        template: TemplateId::parse(&row.template_id)?,
        build: BuildId::parse(&row.build_id)?,
        resources: Resources {
            vcpus: small(row.vcpus)?,
            memory_mib: small(row.memory_mib)?,
            disk_mib: small(row.disk_mib)?,
            processes_max: small(row.processes_max)?,
        },
        metadata: serde_json::from_str(&row.metadata)?,
        secured: row.secured,
        network: from_json(&row.network)?,
        timeout: Duration::from_micros(u64::try_from(row.timeout_us)?),
        on_timeout: on_timeout(&row.on_timeout)?,
        auto_resume: row.auto_resume,
        ingress: from_json(&row.ingress)?,
        started_at: timestamp(row.started_at)?,
        state: read_state(&row)?,
        generation: u64::try_from(row.generation)?,
        alias: row.alias,
        node: row.node,
        envd_version: row.envd_version,
        envs: row.envs,
        stored_files: row
            .stored_files
            .map(|name| SnapshotId::parse(&name))
            .transpose()?,
    })
}

fn read_alive(row: AliveRow) -> Result<AliveSandbox, Misread> {
    Ok(AliveSandbox {
        id: SandboxId::parse(&row.id)?,
        team: TeamId::parse(&row.team_id)?,
        started_at: timestamp(row.started_at)?,
        state: read_life(&row.state, row.ends_at, row.kept.as_deref())?,
        on_timeout: on_timeout(&row.on_timeout)?,
        ingress: from_json(&row.ingress)?,
        generation: u64::try_from(row.generation)?,
        node: row.node,
        is_stored: row.stored_files.is_some(),
    })
}
