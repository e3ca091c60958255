//! A create that is sent twice under one key makes one sandbox (`api.md` 3.0, decision 13).

use std::sync::Arc;

use casemate_store::{Begun, KeyClaim, RequestHash, StoreError};
use casemate_types::{SandboxId, TemplateId, chain, steady};
use serde::{Deserialize, Serialize};

use super::{CreateError, CreateSandbox, Created};
use crate::Control;
use crate::again::again;
use crate::auth::TeamCaller;
use crate::tasks::TaskKind;

const KEY_CHARS_MAX: usize = 255;
/// Of [`KeptAnswer`].
const VERSION: u32 = 1;
const NOT_FREED: &str = "could not free an idempotency key";
const NOT_KEPT: &str = "could not keep an idempotent answer";

/// A client's name for one create: 1 to 255 of `[a-z0-9-]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Idempotency-Key must be 1 to {KEY_CHARS_MAX} characters of a-z, 0-9 and '-'")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    pub fn parse(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=KEY_CHARS_MAX).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidIdempotencyKey)
        }
    }
}

/// Why a key gives no sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdempotencyError {
    #[error("A request with this Idempotency-Key is still in progress")]
    InProgress,
    #[error("The outcome of the first request with this Idempotency-Key is not known")]
    OutcomeUnknown,
    #[error("This Idempotency-Key was used with a different request")]
    Mismatch,
}

/// What is kept of an answer: the token is derived again, never kept.
#[derive(Serialize, Deserialize)]
struct KeptAnswer {
    version: u32,
    sandbox: SandboxId,
    template: TemplateId,
    alias: Option<String>,
    envd_version: String,
    /// Its ports are not public.
    #[serde(default)]
    private: bool,
}

impl Control {
    /// [`Control::create`] under a key; `request` is a digest of the body.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn create_idempotent(
        &self,
        caller: &TeamCaller,
        key: &IdempotencyKey,
        request: &RequestHash,
        ask: CreateSandbox,
    ) -> Result<Created, CreateError> {
        let claim = KeyClaim {
            team: caller.team.id.clone(),
            key: key.0.clone(),
            owner: self.owner.clone(),
            at: steady::now(),
        };
        match self.store.idempotency_begin(&claim, request).await {
            Ok(Begun::New) => {}
            Ok(Begun::InProgress) => return Err(IdempotencyError::InProgress.into()),
            Ok(Begun::Mismatch) => return Err(IdempotencyError::Mismatch.into()),
            Ok(Begun::Unknown) => return Err(IdempotencyError::OutcomeUnknown.into()),
            Ok(Begun::Done { answer }) => return self.replay(&answer),
            Err(error) => {
                if error.is_in_doubt() {
                    self.free_key_in_doubt(claim, *request);
                }
                return Err(error.into());
            }
        }
        match self.create(caller, ask).await {
            Ok(created) => {
                self.keep_answer(claim, &created).await;
                Ok(created)
            }
            Err(error) => {
                self.free_key(claim).await;
                Err(error)
            }
        }
    }

    /// A failed create leaves nothing, so that its key may be used again. Its client was told to ask
    /// again: a key that stays in progress would refuse it for as long as this process lives.
    async fn free_key(&self, claim: KeyClaim) {
        let Err(error) = self.store.idempotency_abandon(&claim).await else {
            return;
        };
        tracing::warn!(team.id = %claim.team, error = chain(&error), "{NOT_FREED} yet");
        let (store, tasks) = (Arc::clone(&self.store), self.tasks.clone());
        self.tasks.spawn(TaskKind::Cleanup, async move {
            // Those of a process that ends are found by the others.
            let _ = again(&tasks, NOT_FREED, || store.idempotency_abandon(&claim)).await;
        });
    }

    /// The same of one of which it is not known whether it was taken.
    fn free_key_in_doubt(&self, claim: KeyClaim, request: RequestHash) {
        let (store, tasks) = (Arc::clone(&self.store), self.tasks.clone());
        self.tasks.spawn(TaskKind::Cleanup, async move {
            let free = async || {
                // The first attempt may still be on its way to be written: this one waits for it, where a
                // removal would see nothing.
                store.idempotency_begin(&claim, &request).await?;
                store.idempotency_abandon(&claim).await
            };
            let _ = again(&tasks, NOT_FREED, free).await;
        });
    }

    /// The sandbox runs whether or not this succeeds: until then a retry is answered 409, and makes no
    /// second sandbox.
    async fn keep_answer(&self, claim: KeyClaim, created: &Created) {
        let kept = KeptAnswer {
            version: VERSION,
            sandbox: created.sandbox.clone(),
            template: created.template.clone(),
            alias: created.alias.clone(),
            envd_version: created.envd_version.clone(),
            private: created.traffic_token.is_some(),
        };
        let answer = serde_json::to_string(&kept).expect("texts and numbers serialize");
        let Err(error) = self.store.idempotency_finish(&claim, &answer).await else {
            return;
        };
        tracing::warn!(team.id = %claim.team, error = chain(&error), "{NOT_KEPT} yet");
        if !error.is_retryable() {
            return;
        }
        let (store, tasks) = (Arc::clone(&self.store), self.tasks.clone());
        self.tasks.spawn(TaskKind::Cleanup, async move {
            let keep = async || match store.idempotency_finish(&claim, &answer).await {
                // The attempt before was done, though it was not answered.
                Err(StoreError::Conflict { .. }) => Ok(()),
                kept => kept,
            };
            let _ = again(&tasks, NOT_KEPT, keep).await;
        });
    }

    fn replay(&self, answer: &str) -> Result<Created, CreateError> {
        let kept: KeptAnswer = serde_json::from_str(answer)
            .ok()
            .filter(|kept: &KeptAnswer| kept.version == VERSION)
            .ok_or(IdempotencyError::OutcomeUnknown)?;
        Ok(Created {
            access_token: self.keys.envd_token(&kept.sandbox),
            traffic_token: kept.private.then(|| self.keys.traffic_token(&kept.sandbox)),
            domain: self.config.domain.clone(),
            sandbox: kept.sandbox,
            template: kept.template,
            alias: kept.alias,
            envd_version: kept.envd_version,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded() {
        let parse = |text: &str| IdempotencyKey::parse(text).is_ok();
        assert!(parse("a") && parse("0-9") && parse(&"x".repeat(255)));
        for wrong in ["", "A", "a b", "a_b", "ä", &"x".repeat(256)] {
            assert!(!parse(wrong), "{wrong:?}");
        }
    }
}
