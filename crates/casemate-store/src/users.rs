//! Users and the teams that they belong to.

use async_trait::async_trait;
use casemate_types::{TeamId, Timestamp, UserId};

use crate::{StoreError, Team};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub created_at: Timestamp,
}

/// A team as one of its members sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub team: Team,
    /// At most one team of a user is the default.
    pub is_default: bool,
}

#[async_trait]
pub trait Users {
    /// [`StoreError::Exists`] when the id is taken.
    async fn user_insert(&self, user: &User) -> Result<(), StoreError>;

    async fn user_by_id(&self, id: &UserId) -> Result<Option<User>, StoreError>;

    /// Makes the user a member, or changes whether the team is the user's default; making it the
    /// default takes that from another team. Idempotent. [`StoreError::Dangling`] when user or
    /// team do not exist.
    async fn member_put(
        &self,
        user: &UserId,
        team: &TeamId,
        is_default: bool,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// The user's teams: the default first, then in the order of joining.
    async fn memberships(&self, user: &UserId) -> Result<Vec<Membership>, StoreError>;
}
