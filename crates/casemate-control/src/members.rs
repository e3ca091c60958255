//! Who belongs to the cluster: machines join, renew their certificates, are cordoned and removed.
//!
//! Owns the authority as API servers share it (its record lies in the store's settings, sealed), the
//! admission of members, and what an administrator does to them. What is true is in the store; one
//! value of this is as good as another. How members are spoken to is `follow`'s caller's.

mod admission;
mod authority;
mod follow;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use casemate_cluster::{Authority, AuthorityError, JoinToken, Seldom};
use casemate_rpc::control::MemberRole;
pub use casemate_rpc::control::MemberRole as MembersRole;
use casemate_store::{JoinRole, NewJoinToken, Node, NodeStanding, Store, StoreError};
use tokio::sync::watch;

use crate::keys::{Keys, RootSecret};
pub use follow::follow;

/// The longest that a join token lasts that an administrator asks for.
pub const TOKEN_LASTS_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// As often as one may be used at most.
pub const TOKEN_USES_MAX: u32 = 10_000;

/// See the module.
pub struct Members {
    store: Arc<dyn Store>,
    authority: Authority,
    /// Somebody joined, or was changed, here: whoever follows nodes looks at once.
    changed: watch::Sender<()>,
    /// Machines that came with one: strangers may do so as often as they like.
    bad_tokens: Seldom,
}

/// Why this server cannot be one of the cluster's.
#[derive(Debug, thiserror::Error)]
pub enum MembersError {
    /// Tokens of sandboxes that one server made would be wrong at another.
    #[error(
        "this API server has another API_KEY_SECRET than the cluster in this database: all of them \
         need the same"
    )]
    OtherSecret,
    #[error("the cluster's authority in the database cannot be opened")]
    Sealed,
    #[error("the cluster's authority")]
    Authority(#[from] AuthorityError),
    #[error("read or write what the cluster's members share")]
    Store(#[from] StoreError),
}

/// Why there is no new join token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("machines join as node or edge")]
    Role,
    #[error("a token lasts for a second to 30 days")]
    Lasts,
    #[error("a token may be used 1 to {TOKEN_USES_MAX} times")]
    Uses,
    #[error("the system's randomness: {0}")]
    Random(getrandom::Error),
    #[error("the cluster's authority")]
    Authority(#[from] AuthorityError),
    #[error("keep the token")]
    Store(#[from] StoreError),
}

impl Members {
    /// Reads the cluster's authority, or makes it: of servers that do so at once all get one.
    pub async fn open(store: Arc<dyn Store>, secret: &RootSecret) -> Result<Self, MembersError> {
        let keys = Keys::derive(secret);
        let authority = authority::open(&*store, &keys).await?;
        Ok(Self {
            store,
            authority,
            changed: watch::Sender::new(()),
            bad_tokens: Seldom::default(),
        })
    }

    /// A new token; it is shown to whoever asked for it, and kept as a hash.
    pub async fn token_make(
        &self,
        role: MemberRole,
        lasts: Duration,
        uses: u32,
    ) -> Result<JoinToken, TokenError> {
        let role = match role {
            MemberRole::Node => JoinRole::Node,
            MemberRole::Edge => JoinRole::Edge,
            // Whoever has the secret and the database is one.
            MemberRole::Api => return Err(TokenError::Role),
        };
        if lasts < Duration::from_secs(1) || lasts > TOKEN_LASTS_MAX {
            return Err(TokenError::Lasts);
        }
        if !(1..=TOKEN_USES_MAX).contains(&uses) {
            return Err(TokenError::Uses);
        }
        let token = JoinToken::make(self.authority.fingerprint()?).map_err(TokenError::Random)?;
        self.store.join_token_forget_expired().await?;
        let kept = NewJoinToken {
            id: token.id(),
            hash: token.secret_hash(),
            role,
            lasts,
            uses_left: Some(uses),
        };
        self.store.join_token_put(&kept).await?;
        Ok(token)
    }

    /// All nodes that joined, by name.
    pub async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        self.store.node_list().await
    }

    /// Whether there is such a node.
    pub async fn node_set_standing(
        &self,
        node: &str,
        standing: NodeStanding,
    ) -> Result<bool, StoreError> {
        let found = self.store.node_set_standing(node, standing).await?;
        self.changed.send_replace(());
        Ok(found)
    }

    /// Nobody speaks with it any more, and its certificate is not renewed. What its rows say of
    /// sandboxes is [`crate::Control::remove_joined_node`]'s. Whether there was such a node.
    pub async fn node_remove(&self, node: &str) -> Result<bool, StoreError> {
        let found = self.store.node_remove(node).await?;
        self.changed.send_replace(());
        Ok(found)
    }
}
