//! Teams as their members see them.

use casemate_store::{Membership, StoreError};
use casemate_types::UserId;

use crate::Control;
use crate::admin::NewApiKey;

/// Name of the keys that a login makes.
const LOGIN_KEY_NAME: &str = "CLI login/configure";

impl Control {
    /// The user's teams, each with a key made for this answer (that is what the command line's
    /// login needs, and the only way to get a key in clear).
    pub async fn teams_with_keys(
        &self,
        user: &UserId,
    ) -> Result<Vec<(Membership, NewApiKey)>, StoreError> {
        let mut teams = Vec::new();
        for membership in self.store.memberships(user).await? {
            let team = &membership.team;
            let key = self
                .insert_api_key(team, LOGIN_KEY_NAME, Some(user.clone()))
                .await?;
            teams.push((membership, key));
        }
        Ok(teams)
    }
}
