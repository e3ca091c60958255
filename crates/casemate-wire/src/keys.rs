use casemate_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What may be shown of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyMask {
    pub prefix: String,
    /// Without the prefix.
    pub value_length: u32,
    pub masked_value_prefix: String,
    pub masked_value_suffix: String,
}

/// Who made a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TeamUser {
    pub id: String,
    /// Deprecated; always null.
    pub email: Option<String>,
}

/// A key of a team, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TeamAPIKey)]
pub struct TeamApiKey {
    pub id: String,
    pub name: String,
    pub mask: KeyMask,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    pub created_by: Option<TeamUser>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used: Option<Timestamp>,
}

/// A new key: the only answer that carries its value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CreatedTeamAPIKey)]
pub struct CreatedTeamApiKey {
    pub id: String,
    pub name: String,
    pub key: String,
    pub mask: KeyMask,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    pub created_by: Option<TeamUser>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used: Option<Timestamp>,
}

/// Request: what a key is to be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyName {
    pub name: String,
}
