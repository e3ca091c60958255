//! A team's API keys, which only the administrator manages.

use casemate_wire::{CreatedTeamApiKey, KeyName, TeamApiKey};
use percent_encoding::utf8_percent_encode;

use super::{Admin, PIECE, ended, read};
use crate::error::ApiError;

impl Admin {
    /// Makes a key. The answer is the only one that ever carries its value.
    pub async fn key_create(&self, name: &str) -> Result<CreatedTeamApiKey, ApiError> {
        let path = self.keys_path();
        let answer = self
            .server
            .post(
                &path,
                &KeyName {
                    name: name.to_owned(),
                },
            )
            .await?;
        read("key create", &answer)
    }

    pub async fn key_list(&self) -> Result<Vec<TeamApiKey>, ApiError> {
        let answer = self.server.get("/api-keys").await?;
        read("key list", &answer)
    }

    /// Ends a key at once. False: the team has no such key.
    pub async fn key_revoke(&self, key_id: &str) -> Result<bool, ApiError> {
        let key = utf8_percent_encode(key_id, PIECE);
        ended(
            self.server
                .delete(&format!("{}/{key}", self.keys_path()))
                .await,
        )
    }

    fn keys_path(&self) -> String {
        format!(
            "/admin/teams/{}/api-keys",
            utf8_percent_encode(&self.team_id, PIECE)
        )
    }
}
