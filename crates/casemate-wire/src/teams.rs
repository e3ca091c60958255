use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A team of the calling user, with a key made for this answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Team {
    #[serde(rename = "teamID")]
    pub team_id: String,
    pub name: String,
    pub api_key: String,
    pub is_default: bool,
}

/// What became of an order to kill all sandboxes of a team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminSandboxKillResult)]
pub struct KilledSandboxes {
    pub killed_count: u32,
    pub failed_count: u32,
}
