//! A new row.

use std::collections::BTreeMap;

use casemate_sql::{Query, Value, query, sql};
use casemate_types::{SandboxState, SnapshotId};

use crate::Sandbox;
use crate::rows::{
    ingress_text, kept_word, micros, network_text, on_timeout_word, reason_word, signed,
};

pub(super) fn insert(sandbox: &Sandbox, running_max: Option<u32>) -> Query {
    // A dead sandbox has no promise any more; its end stands in for it.
    let (state, ends_at, ended_at, reason, kept) = match &sandbox.state {
        SandboxState::Running { ends_at } => ("running", *ends_at, None, None, None),
        SandboxState::Paused { at, kept } => ("paused", *at, None, None, Some(*kept)),
        SandboxState::Dead { ended_at, reason } => {
            ("dead", *ended_at, Some(*ended_at), Some(*reason), None)
        }
    };
    let metadata =
        serde_json::to_string(&sandbox.metadata).expect("a map of strings always serializes");
    let resources = sandbox.resources;
    query(sql!(
        "INSERT INTO sandboxes (",
        columns!(),
        either("", ", metadata_pairs"),
        ") SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
         $18, $19, $20, $21, $22, $23, $24, $25, $26, $28",
        either("", ", $29"),
        // SQLite writes for one at a time; PostgreSQL's function sees to it that nobody comes between.
        either(
            " WHERE $27 IS NULL OR $27 > \
             (SELECT COUNT(*) FROM sandboxes WHERE team_id = $2 AND state = 'running' \
             AND node NOT IN (SELECT id FROM nodes WHERE lost_at IS NOT NULL))",
            " WHERE (SELECT sandbox_has_place($2, $27))"
        )
    ))
    .bind(sandbox.id.as_str())
    .bind(sandbox.team.as_str())
    .bind(sandbox.template.as_str())
    .bind(sandbox.alias.as_deref())
    .bind(sandbox.build.to_string())
    .bind(&sandbox.node)
    .bind(&sandbox.envd_version)
    .bind(i64::from(resources.vcpus))
    .bind(i64::from(resources.memory_mib))
    .bind(i64::from(resources.disk_mib))
    .bind(i64::from(resources.processes_max))
    .bind(metadata)
    .bind(sandbox.secured)
    .bind(network_text(&sandbox.network))
    .bind(i64::try_from(sandbox.timeout.as_micros()).unwrap_or(i64::MAX))
    .bind(on_timeout_word(sandbox.on_timeout))
    .bind(micros(sandbox.started_at))
    .bind(micros(ends_at))
    .bind(state)
    .bind(ended_at.map(micros))
    .bind(reason.map(reason_word))
    .bind(signed(sandbox.generation))
    .bind(kept.map(kept_word))
    .bind(sandbox.auto_resume)
    .bind(ingress_text(&sandbox.ingress))
    .bind(sandbox.envs.as_deref())
    .bind(running_max.map(i64::from))
    .bind(sandbox.stored_files.as_ref().map(SnapshotId::as_str))
    .bind_on_postgres(pairs(&sandbox.metadata))
}

pub(super) fn pairs(metadata: &BTreeMap<String, String>) -> Value {
    Value::Texts(pair_texts(metadata))
}

/// Each pair as one text, the same for the same pair.
pub(in crate::sql) fn pair_texts(metadata: &BTreeMap<String, String>) -> Vec<String> {
    let pair = |pair| serde_json::to_string(&pair).expect("a pair of strings always serializes");
    metadata.iter().map(pair).collect()
}
